//! Requests: each gets a task of its own; this file only tells which answers what.

use enishi_api::{Answer, Failure, Request, StreamRequest};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::desk::Desk;
use super::gateway::forwards;
use super::{
    channels, closed, diagnostics, discovery, dns, doctor, government, invitations, map, names,
    offers, ports, routes, status, streams, turn, upstream, verify, wireguard,
};
use crate::control::{Call, StreamCall};

/// Takes requests as long as the control interface hands them over.
pub(super) async fn attend(
    desk: Desk,
    mut calls: mpsc::Receiver<Call>,
    mut stream_calls: mpsc::Receiver<StreamCall>,
) {
    loop {
        tokio::select! {
            Some(call) = calls.recv() => {
                tokio::spawn(answer(desk.clone(), call));
            }
            Some(call) = stream_calls.recv() => {
                tokio::spawn(stream(desk.clone(), call));
            }
            else => return,
        }
    }
}

/// Answers a request, unless the caller hangs up before.
async fn answer(desk: Desk, call: Call) {
    let Call { request, answers } = call;
    let last = tokio::select! {
        result = serve(&desk, request, &answers) => result.unwrap_or_else(Answer::Failure),
        () = answers.closed() => return,
    };
    // The caller may have gone just now.
    let _ = answers.send(last).await;
}

/// Carries out a request and returns its last answer.
async fn serve(
    desk: &Desk,
    request: Request,
    answers: &mpsc::Sender<Answer>,
) -> Result<Answer, Failure> {
    match request {
        Request::Status => status::status(desk).await,
        Request::Peers => status::peers(desk).await,
        Request::Invite => invitations::overlay(desk).await,
        Request::ChannelCreate(create) => channels::create(desk, create).await,
        Request::ChannelInvite(invite) => invitations::channel(desk, invite).await,
        Request::ChannelInvitations { name } => invitations::open_ones(desk, &name).await,
        Request::ChannelRevoke { name, invitation } => {
            government::revoke(desk, &name, &Zeroizing::new(invitation)).await
        }
        Request::ChannelRemove(of) => government::remove(desk, of).await,
        Request::ChannelRole { of, role } => government::role(desk, of, role).await,
        Request::ChannelAdmin { of, admin } => government::admin(desk, of, admin).await,
        Request::ChannelRules { name } => government::rules(desk, &name).await,
        Request::ChannelAllow { name, rule } => government::allow(desk, &name, rule).await,
        Request::ChannelDisallow { name, number } => {
            government::disallow(desk, &name, number).await
        }
        Request::ChannelShow { name } => channels::show(desk, name).await,
        Request::ChannelJoin(join) => channels::join(desk, join).await,
        Request::ChannelLeave { name, force } => channels::leave(desk, name, force).await,
        Request::ChannelCount { name } => offers::count(desk, name).await,
        Request::ChannelDiscovery { name, on } => discovery::answer(desk, name, on).await,
        Request::Offer(ask) => offers::answer(desk, ask).await,
        Request::ChannelList => channels::list(desk).await,
        Request::Route(ask) => routes::answer(desk, ask).await,
        Request::Proxy(ask) => upstream::answer(desk, ask).await,
        Request::ChannelNames { name } => dns::names(desk, &name).await,
        Request::Resolve { name } => dns::resolve(desk, &name).await,
        Request::ForwardAdd(add) => forwards::add(desk, add).await,
        Request::ForwardRemove { id } => forwards::remove(desk, id),
        Request::ForwardList => Ok(forwards::list(desk)),
        Request::WireGuard(ask) => wireguard::answer(desk, ask).await,
        Request::Turn(ask) => turn::answer(desk, ask).await,
        Request::PortListen { channel, port } => ports::listen(desk, channel, port, answers).await,
        Request::Ping(ping) => diagnostics::ping(desk, &ping, answers).await,
        Request::Trace { target, probes } => {
            diagnostics::trace(desk, &target, probes, answers).await
        }
        Request::Verify { target, paths } => verify::verify(desk, &target, paths).await,
        Request::Doctor => doctor::examine(desk, answers).await,
        Request::DoctorNet => doctor::net::examine(desk, answers).await,
        Request::OverlayMap { crawl } => map::map(desk, crawl).await,
        Request::DhtPut {
            key,
            value,
            lease_s,
        } => names::put(desk, &key, &value, lease_s).await,
        Request::DhtGet { key } => names::get(desk, &key).await,
        Request::DhtRemove { key } => names::remove(desk, &key).await,
        Request::OverlayInvite(invite) => closed::invite(desk, &invite).await,
        Request::OverlayShow => closed::show(desk).await,
        Request::OverlayRevoke { subject } => closed::revoke(desk, &subject).await,
        Request::Shutdown => {
            desk.ending.stop.cancel();
            desk.ending.stopped.cancelled().await;
            Ok(Answer::Done)
        }
    }
}

/// Opens a byte stream, unless the caller hangs up before.
async fn stream(desk: Desk, call: StreamCall) {
    let StreamCall {
        request,
        mut answer,
    } = call;
    match request {
        StreamRequest::Listen { service } => streams::listen(&desk, service, answer),
        StreamRequest::Take { connection } => drop(answer.send(ports::take(&desk, connection))),
        StreamRequest::ConnectPort {
            channel,
            member,
            port,
        } => {
            let result = tokio::select! {
                result = ports::connect(&desk, &channel, &member, port) => result,
                () = answer.closed() => return,
            };
            // The caller may have gone just now.
            let _ = answer.send(result);
        }
        StreamRequest::Connect { target, service } => {
            let result = tokio::select! {
                result = streams::connect(&desk, &target, &service) => result,
                () = answer.closed() => return,
            };
            // The caller may have gone just now.
            let _ = answer.send(result);
        }
    }
}
