//! What others say of proxies: the answer of a PAC file, and the texts of environments and desktops.
#![no_main]

use enishi_proxy::desktop::Found;
use enishi_proxy::pac::answer::{ROUTES_MAX, parse};
use enishi_proxy::{Bypass, Environment, Route, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let routes = parse(text).routes;
    assert!((1..=ROUTES_MAX).contains(&routes.len()));
    // What is shown of routes reads as the same routes.
    let shown: Vec<String> = routes.iter().map(ToString::to_string).collect();
    assert_eq!(parse(&shown.join("; ")).routes, routes);

    let _ = Route::parse(text);
    let (list, _) = Bypass::of_variable(text);
    if let Ok(target) = Target::parse(text) {
        assert_eq!(Target::parse(&target.to_string()), Ok(target.clone()));
        let _ = list.reason(&target);
    }
    let _ = Environment::read(|_| Some(text.into()));
    for found in [
        Found::of_gnome(text),
        Found::of_kde(text, |_| None),
        Found::of_environment(|_| Some(text.to_owned())),
    ] {
        let _ = found.written.settings();
    }
});
