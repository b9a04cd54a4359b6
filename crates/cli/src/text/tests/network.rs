//! What `enishi doctor net` says of each thing that it can find, in each language.

use std::net::SocketAddr;

use enishi_api::{Check, Finding, MappingLifetime, Nat, Outcome, PortMapping, TurnUsed};

use super::{Diagnosis, Language};

/// Of English and of Japanese.
type Both<T> = [T; 2];

/// What is said of something.
fn said(outcome: Outcome, finding: &Finding) -> Both<Diagnosis> {
    let finding = finding.clone();
    let check = Check { outcome, finding };
    [Language::En, Language::Ja].map(|language| language.diagnosis(&check))
}

/// What was found, and what is to be done about it.
fn detail(finding: &Finding) -> Both<String> {
    said(Outcome::Ok, finding).map(|diagnosis| diagnosis.detail)
}

fn advice(outcome: Outcome, finding: &Finding) -> Both<Option<String>> {
    said(outcome, finding).map(|diagnosis| diagnosis.advice)
}

/// Each of these has its own words, and none of the others'.
#[track_caller]
fn assert_words(findings: &[(Finding, Both<&str>)]) {
    for (number, (finding, _)) in findings.iter().enumerate() {
        for (language, detail) in detail(finding).iter().enumerate() {
            for (other, (_, words)) in findings.iter().enumerate() {
                let words = words[language];
                let is_said = detail.contains(words);
                assert_eq!(
                    is_said,
                    number == other,
                    "`{words}` of {finding:?}: {detail}"
                );
            }
        }
    }
}

/// So much is advised in each language, and nothing in words of the others.
#[track_caller]
fn assert_advice(checks: &[(Outcome, Finding, Option<Both<&str>>)]) {
    for (outcome, finding, expected) in checks {
        for (language, advice) in advice(*outcome, finding).iter().enumerate() {
            let words = expected.map(|words| words[language]);
            match (advice, words) {
                (None, None) => {}
                (Some(advice), Some(words)) => {
                    assert!(advice.contains(words), "no `{words}` in {advice}");
                }
                _ => panic!("{outcome:?} {finding:?}: {advice:?}"),
            }
        }
    }
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn translation(nat: Nat) -> Finding {
    Finding::Translation {
        nat: Box::new(nat),
        own: vec![at("192.168.1.2:7000"), at("[2001:db8::2]:7000")],
    }
}

/// As others see the node.
fn seen(mapping: &str) -> Finding {
    translation(Nat {
        mapping: mapping.to_owned(),
        observed: vec![at("203.0.113.9:4001"), at("[2001:db8::9]:4002")],
        ..Nat::default()
    })
}

#[test]
fn each_kind_of_translation_has_its_own_words() {
    assert_words(&[
        (
            seen("none"),
            ["nothing is in between", "間に変換はありません"],
        ),
        (
            seen("endpoint-independent"),
            [
                "one outer address for all (203.0.113.9:4001, [2001:db8::9]:4002)",
                "外側のアドレスを 1 つ割り当てています（203.0.113.9:4001、[2001:db8::9]:4002）",
            ],
        ),
        (
            seen("sequential"),
            ["one after the other", "番号順に別のポート"],
        ),
        (seen("random"), ["drawn", "無作為に別のポート"]),
        (seen("unknown"), ["three are needed", "3 つ必要です"]),
    ]);
    for mapping in [
        "none",
        "endpoint-independent",
        "sequential",
        "random",
        "unknown",
    ] {
        let [english, japanese] = detail(&seen(mapping));
        let own = "192.168.1.2:7000, [2001:db8::2]:7000; ";
        assert!(english.starts_with(own), "{english}");
        let own = "192.168.1.2:7000、[2001:db8::2]:7000。";
        assert!(japanese.starts_with(own), "{japanese}");
    }
}

#[test]
fn what_the_router_does_on_request_is_told_with_the_translation() {
    let asked = |router, mapped: Option<&str>| {
        translation(Nat {
            mapping: "none".to_owned(),
            mapped: mapped.map(at),
            router,
            ..Nat::default()
        })
    };
    let [upnp, pcp] = [true, false].map(|upnp| PortMapping {
        upnp,
        nat_pmp: !upnp,
        pcp: !upnp,
    });
    let none = PortMapping::default();
    assert_words(&[
        (
            asked(Some(none), None),
            ["the router maps no ports", "要求に応じてポートを開きません"],
        ),
        (
            asked(Some(pcp), None),
            [
                "the router refuses to map a port (NAT-PMP, PCP)",
                "ポートの転送を拒否しました（NAT-PMP, PCP）",
            ],
        ),
        (
            asked(Some(upnp), Some("203.0.113.9:4001")),
            [
                "the router maps 203.0.113.9:4001 to it (UPnP)",
                "ルーターが 203.0.113.9:4001 を転送しています（UPnP）",
            ],
        ),
    ]);
    let [english, japanese] = detail(&asked(None, None));
    assert!(!english.contains("router"), "{english}");
    assert!(!japanese.contains("ルーター"), "{japanese}");
}

#[test]
fn what_helps_against_a_hard_translation_is_told_where_it_is_one() {
    let words = ["UPnP, NAT-PMP or PCP", "UPnP、NAT-PMP、PCP"];
    assert_advice(&[
        (Outcome::Ok, seen("random"), None),
        (Outcome::Warning, seen("random"), Some(words)),
        (Outcome::Warning, seen("sequential"), Some(words)),
    ]);
}

/// What is known of how long silent ways are kept, of a router for which they are used every 7.5 s.
fn kept(at_least_s: Option<u64>, less_than_s: Option<u64>, measuring: bool) -> MappingLifetime {
    MappingLifetime {
        measuring,
        at_least_s,
        less_than_s,
        unlimited: false,
        translated: true,
        keep_alive_ms: 7_500,
    }
}

#[test]
fn each_lifetime_has_its_own_words() {
    let unlimited = MappingLifetime {
        unlimited: true,
        ..kept(None, None, false)
    };
    let findings = [
        (
            unlimited,
            [
                "nothing is in between that forgets",
                "忘れるものはありません",
            ],
        ),
        (
            kept(Some(0), Some(7), true),
            [
                "forgets a silent way in less than 7 s; silent ways are used every 7.5 s",
                "7 秒足らずで忘れます。通信のない経路は 7.5 秒ごと",
            ],
        ),
        (
            kept(Some(10), Some(20), false),
            [
                "forgets a silent way after 10 to 20 s; silent ways are used every 7.5 s",
                "10〜20 秒で忘れます。通信のない経路は 7.5 秒ごと",
            ],
        ),
        (
            kept(Some(85), None, true),
            [
                "open for 85 s or more; still being measured",
                "85 秒以上保ちます。測定中です",
            ],
        ),
        (
            kept(Some(295), None, false),
            [
                "open for 295 s or more; silent ways are used every 7.5 s",
                "295 秒以上保ちます。通信のない経路は 7.5 秒ごと",
            ],
        ),
        (
            kept(None, None, true),
            ["ask again in some minutes", "数分後にもう一度"],
        ),
        (
            kept(None, None, false),
            ["it is tried again", "後でまた試します"],
        ),
    ];
    assert_words(&findings.map(|(lifetime, words)| (Finding::Lifetime(lifetime), words)));
    for known in [
        kept(Some(0), Some(7), false),
        kept(Some(10), Some(20), false),
        kept(Some(85), None, true),
        kept(Some(295), None, false),
    ] {
        for (translated, who) in [
            (true, ["the router ", "ルーターは"]),
            (false, ["a firewall ", "ファイアウォールは"]),
        ] {
            let lifetime = MappingLifetime {
                translated,
                ..known
            };
            let details = detail(&Finding::Lifetime(lifetime));
            for (detail, who) in details.iter().zip(who) {
                assert!(detail.starts_with(who), "{detail}");
            }
        }
    }
}

#[test]
fn a_short_lifetime_is_to_be_set_longer() {
    let short = Finding::Lifetime(kept(Some(10), Some(20), false));
    let words = ["set its UDP timeout", "UDP タイムアウトを"];
    assert_advice(&[
        (Outcome::Ok, short.clone(), None),
        (Outcome::Warning, short, Some(words)),
    ]);
}

/// So many sessions by datagrams, by datagrams within the site, by streams, and by way of others.
fn paths([datagrams, site, streams, relayed]: [u32; 4]) -> Finding {
    Finding::Paths {
        datagrams,
        site,
        streams,
        relayed,
    }
}

#[test]
fn sessions_are_counted_by_what_they_go_over() {
    let [english, japanese] = detail(&paths([7, 2, 3, 4]));
    assert_eq!(
        english,
        "7 by UDP, 2 more within the site, 3 by TCP or HTTP, 4 by way of others"
    );
    assert_eq!(
        japanese,
        "UDP 7（ほかに拠点内 2）、TCP または HTTP 3、他のノード経由 4"
    );
}

#[test]
fn who_reaches_nobody_is_told_otherwise_than_who_is_without_udp() {
    let nobody = [
        "The node speaks with nobody",
        "どのノードとも通信できていません",
    ];
    let no_udp = ["No UDP passes", "UDP が通らない"];
    assert_advice(&[
        (Outcome::Problem, paths([0; 4]), Some(nobody)),
        // One of any sort is somebody.
        (Outcome::Warning, paths([1, 0, 0, 0]), Some(no_udp)),
        (Outcome::Warning, paths([0, 1, 0, 0]), Some(no_udp)),
        (Outcome::Warning, paths([0, 0, 1, 0]), Some(no_udp)),
        (Outcome::Warning, paths([0, 0, 0, 1]), Some(no_udp)),
        (Outcome::Ok, paths([1, 0, 0, 0]), None),
    ]);
    let proxy = advice(Outcome::Problem, &paths([0; 4]));
    for advice in proxy.map(Option::unwrap) {
        assert!(advice.contains("`proxy`"), "{advice}");
    }
}

#[test]
fn proxies_are_named_and_none_is_told_from_one_that_is_not_to_be_used() {
    let proxies = |routes: &[&str]| Finding::Proxies {
        routes: routes.iter().map(|route| (*route).to_owned()).collect(),
    };
    assert_eq!(detail(&proxies(&[])), ["none", "なし"]);
    assert_eq!(
        detail(&proxies(&["direct"])),
        ["none is to be used", "使いません"]
    );
    let proxy = "http 192.0.2.1:3128";
    assert_eq!(detail(&proxies(&[proxy])), [proxy, proxy]);
    assert_eq!(
        detail(&proxies(&[proxy, "direct"])),
        ["http 192.0.2.1:3128, direct", "http 192.0.2.1:3128、direct"]
    );
    assert_advice(&[(Outcome::Ok, proxies(&[]), None)]);
}

const TURN_URL: &str = "turn:me@turn.example:3478";

/// A TURN server with this trouble, and this code.
fn turn(trouble: &str, code: Option<u16>) -> TurnUsed {
    TurnUsed {
        url: TURN_URL.to_owned(),
        trouble: Some(trouble.to_owned()),
        code,
        ..TurnUsed::default()
    }
}

#[test]
fn each_trouble_with_a_turn_server_has_its_own_words() {
    let relays = TurnUsed {
        relayed: Some(at("203.0.113.5:50000")),
        trouble: None,
        ..turn("", None)
    };
    let unreachable = TurnUsed {
        error: Some("no route".to_owned()),
        ..turn("unreachable", None)
    };
    let findings = [
        (
            relays,
            ["relays for 203.0.113.5:50000", "203.0.113.5:50000 で中継中"],
        ),
        (
            turn("waiting", None),
            ["has not answered yet", "まだ応答がありません"],
        ),
        (
            turn("no-address", None),
            [
                "its name has no address",
                "名前に対応するアドレスがありません",
            ],
        ),
        (
            unreachable,
            ["not reached: no route", "到達できません: no route"],
        ),
        (turn("silent", None), ["does not answer", "応答しません"]),
        (turn("forgotten", None), ["was restarted", "再起動された"]),
        (
            turn("refused", Some(401)),
            [
                "refuses name or password (401)",
                "名前またはパスワードを拒否しました (401)",
            ],
        ),
        (
            turn("refused", Some(486)),
            ["too many allocations (486)", "割り当てが多すぎます (486)"],
        ),
        (
            turn("refused", Some(508)),
            ["has no room (508)", "空きがありません (508)"],
        ),
        (
            turn("refused", Some(437)),
            ["refuses (437)", "拒否しました (437)"],
        ),
        (turn("refused", None), [": refused", ": refused"]),
    ];
    let findings = findings.map(|(server, words)| (Finding::TurnServer(server), words));
    assert_words(&findings);
    for detail in findings.iter().flat_map(|(finding, _)| detail(finding)) {
        assert!(detail.starts_with(&format!("{TURN_URL}: ")), "{detail}");
    }
}

#[test]
fn a_turn_server_is_tried_by_tcp_where_it_is_silent_by_udp() {
    let by_tcp = TurnUsed {
        url: format!("{TURN_URL}?transport=tcp"),
        ..turn("silent", None)
    };
    let tcp = ["URL?transport=tcp", "URL?transport=tcp"];
    let password = ["Name and password", "名前とパスワード"];
    assert_advice(&[
        (Outcome::Ok, Finding::TurnServer(turn("silent", None)), None),
        (
            Outcome::Problem,
            Finding::TurnServer(turn("silent", None)),
            Some(tcp),
        ),
        (
            Outcome::Problem,
            Finding::TurnServer(by_tcp),
            Some(password),
        ),
        (
            Outcome::Problem,
            Finding::TurnServer(turn("refused", Some(401))),
            Some(password),
        ),
    ]);
}

#[test]
fn what_passes_is_told_with_all_that_was_found_line_by_line() {
    let way = "http 192.0.2.1:80 by the proxy 192.0.2.9:3128";
    let passage = |found: &str| Finding::Passage {
        way: way.to_owned(),
        took_ms: 97,
        found: found.to_owned(),
    };
    let passes = [
        format!("{way}: passes, answered after 97 ms"),
        format!("{way}: 通ります（応答 97 ms）"),
    ];
    assert_eq!(detail(&passage("")), passes);
    let found = passes.map(|passes| format!("{passes}\n      up: POST\n      down: replies"));
    assert_eq!(detail(&passage("up: POST\n\ndown: replies\n")), found);
    assert_advice(&[(Outcome::Ok, passage(""), None)]);
}

#[test]
fn what_does_not_pass_is_a_fault_only_if_nothing_does() {
    let ways = ["tcp 192.0.2.1:80", "http 192.0.2.1:80 (403)"];
    let blocked = Finding::Blocked {
        ways: Vec::from(ways.map(str::to_owned)),
    };
    assert_eq!(
        detail(&blocked),
        [
            "does not pass: tcp 192.0.2.1:80, http 192.0.2.1:80 (403)",
            "通らないもの: tcp 192.0.2.1:80、http 192.0.2.1:80 (403)",
        ]
    );
    let firewall = [
        "let out UDP, or TCP to port 443",
        "UDP か、TCP の 443 番ポート",
    ];
    let join = ["Once the node has joined", "参加した後で"];
    assert_advice(&[
        (Outcome::Ok, blocked.clone(), None),
        (Outcome::Warning, blocked, Some(firewall)),
        (Outcome::Warning, Finding::NoPassage, Some(join)),
    ]);
    let [english, japanese] = detail(&Finding::NoPassage);
    assert!(english.contains("no peer is known"), "{english}");
    assert!(japanese.contains("相手を知りません"), "{japanese}");
}

#[test]
fn each_part_of_the_network_has_its_title() {
    let passage = Finding::Passage {
        way: "tcp 192.0.2.1:80".to_owned(),
        took_ms: 97,
        found: String::new(),
    };
    let titles = [
        (seen("none"), ["translation", "変換"]),
        (
            Finding::Lifetime(MappingLifetime::default()),
            ["lifetime", "経路の寿命"],
        ),
        (paths([0; 4]), ["sessions", "セッション"]),
        (
            Finding::Proxies { routes: Vec::new() },
            ["proxies", "プロキシ"],
        ),
        (
            Finding::TurnServer(turn("silent", None)),
            ["TURN server", "TURN サーバー"],
        ),
        (passage, ["passage", "通り道"]),
        (Finding::Blocked { ways: Vec::new() }, ["blocked", "遮断"]),
        (Finding::NoPassage, ["passage", "通り道"]),
    ];
    for (finding, expected) in titles {
        for outcome in [Outcome::Ok, Outcome::Warning, Outcome::Problem] {
            let told = said(outcome, &finding).map(|diagnosis| diagnosis.title);
            assert_eq!(told, expected, "{finding:?}");
        }
    }
}
