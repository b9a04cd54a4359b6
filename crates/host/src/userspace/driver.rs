//! Lets a stack do what is to be done: when packets come, sockets were used, or time has come.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use enishi_dataplane::device::Port;
use tokio::io::unix::AsyncFd;

use super::Shared;
use super::core::Next;

/// Drives a stack until it is closed. The bell is readable when the port is.
pub(super) async fn drive(shared: Arc<Shared>, port: Port, bell: AsyncFd<OwnedFd>) {
    loop {
        let next = shared.lock().poll(&port);
        let wait = async {
            match next {
                Next::Now => tokio::task::yield_now().await,
                Next::After(delay) => tokio::time::sleep(delay).await,
                Next::Idle => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.closed.cancelled() => break,
            () = shared.used.notified() => {}
            ready = bell.readable() => match ready {
                // What comes from now on makes it ready again, and all before is taken.
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => {
                    tracing::error!(%error, "packets cannot be waited for");
                    break;
                }
            },
            () = wait => {}
        }
    }
    shared.closed.cancel();
    shared.lock().end(&port);
}
