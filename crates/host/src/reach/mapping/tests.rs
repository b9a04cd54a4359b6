//! What the mappings follow, with a router that does what it should.

use std::net::Ipv4Addr;

use super::upnp::tests::router::router;
use super::upnp::tests::{PORT, lines, nobody, until};
use super::*;

fn home(own: [u8; 4]) -> Home {
    Home {
        own: own.into(),
        router: Some(Ipv4Addr::LOCALHOST),
    }
}

/// Bridges for containers come and go; what is mapped stays, until the address goes that it is for.
#[tokio::test]
async fn other_addresses_of_the_host_give_no_mapping_back() {
    let (at, router) = router(&[0]);
    let (told, mut mapped) = watch::channel(Mapped::default());
    let external = watch::channel(External::default()).1;
    let mut mapping = Mapping::new([PORT; 2], external.clone(), told);
    for port in &mut mapping.ports {
        let ports = (PORT, port.outer);
        let opened =
            upnp::Mapping::open(lines(&[at]), ports, upnp::TERMS, external.clone(), nobody);
        port.kept = Some(Kept::Upnp(opened.await.unwrap()));
    }
    let [own, bridge] = [[192, 0, 2, 9], [172, 17, 0, 1]];
    mapping.home = Some(home(own));
    let all = |ips: &[[u8; 4]]| ips.iter().map(|ip| (*ip, 7).into()).collect::<Vec<_>>();
    let (local, addresses) = watch::channel(all(&[own]));
    let stop = CancellationToken::new();
    let looked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let looks = std::sync::Arc::clone(&looked);
    let look = move |own: &[IpAddr]| {
        looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let at = home([192, 0, 2, 9]);
        own.contains(&at.own.into()).then_some(at)
    };
    let kept = tokio::spawn(mapping.keep_where(addresses, stop.clone(), look));
    let is_mapped = |mapped: &Mapped| mapped.sessions.is_some() && mapped.packets.is_some();
    mapped.wait_for(is_mapped).await.unwrap();
    for now in [vec![own, bridge], vec![bridge, own], vec![own]] {
        let before = looked.load(std::sync::atomic::Ordering::SeqCst);
        local.send_replace(all(&now));
        let is_seen = || looked.load(std::sync::atomic::Ordering::SeqCst) > before;
        until("it is looked", is_seen).await;
    }
    assert_eq!(router.lock().unwrap().mapped.len(), 2);
    assert!(
        !router
            .lock()
            .unwrap()
            .asked
            .contains_key("DeletePortMapping")
    );
    assert!(is_mapped(&mapped.borrow()));
    // Nobody is asked without an address.
    local.send_replace(Vec::new());
    until("they are given back", || {
        router.lock().unwrap().mapped.is_empty()
    })
    .await;
    let is_lost = |mapped: &Mapped| mapped.sessions.is_none() && mapped.packets.is_none();
    mapped.wait_for(is_lost).await.unwrap();
    stop.cancel();
    kept.await.unwrap();
}
