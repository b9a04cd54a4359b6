//! What `enishi doctor net` says, in Japanese.

use std::net::SocketAddr;

use enishi_api::{Finding, Nat};

use super::{router, said};
use crate::text::{Diagnosis, Message};

/// Words what was found out about the node's network.
pub(super) fn diagnosis(finding: &Finding, bad: bool) -> Diagnosis {
    match finding {
        Finding::Translation { nat, own } => translation(nat, own, bad),
        Finding::Paths {
            datagrams,
            site,
            streams,
            relayed,
        } => said(
            "セッション",
            format!("UDP {datagrams}（ほかに拠点内 {site}）、TCP または HTTP {streams}、他のノード経由 {relayed}"),
            match (datagrams + site + streams + relayed, bad) {
                (0, _) => Some(
                    "どのノードとも通信できていません。外へ出られないか、外のノードを知りません。\
                     プロキシが必要なら設定ファイルの `proxy` に書いてください。",
                ),
                (_, true) => Some(
                    "UDP が通らないため、すべて遅くなります。自分のファイアウォールなら UDP を\
                     外へ通してください。",
                ),
                _ => None,
            },
        ),
        Finding::Proxies { routes } => said(
            "プロキシ",
            match routes.as_slice() {
                [] => "なし".to_owned(),
                [only] if only == "direct" => "使いません".to_owned(),
                some => some.join("、"),
            },
            None,
        ),
        Finding::TurnServer(server) => {
            let how = super::super::text(&Message::TurnUsed { server });
            let advice = bad.then_some(
                "ほかに経路のないノードはここを通れません。名前とパスワードは `enishi turn use` で直し、そうでなければ運用者に確認してください。",
            );
            said("TURN サーバー", format!("{}: {how}", server.url), advice)
        }
        Finding::Passage {
            way,
            took_ms,
            found,
        } => {
            let detail = format!("{way}: 通ります（応答 {took_ms} ms）");
            let found = found.lines().filter(|line| !line.is_empty());
            let found: Vec<_> = found.map(|line| format!("\n      {line}")).collect();
            said("通り道", detail + &found.concat(), None)
        }
        Finding::Blocked { ways } => said(
            "遮断",
            format!("通らないもの: {}", ways.join("、")),
            bad.then_some("どれも通りません。自分のファイアウォールなら、UDP か、TCP の 443 番ポートを外へ通してください。"),
        ),
        _ => said(
            "通り道",
            "何が通るかを試せる相手を知りません",
            Some("参加した後でもう一度実行してください。外から届くメンバーが 1 人は必要です。"),
        ),
    }
}

fn translation(nat: &Nat, own: &[SocketAddr], bad: bool) -> Diagnosis {
    let own: Vec<String> = own.iter().map(ToString::to_string).collect();
    let seen: Vec<String> = nat.observed.iter().map(ToString::to_string).collect();
    let what = match nat.mapping.as_str() {
        "none" => "自分のアドレスがそのまま外から見えています。間に変換はありません".to_owned(),
        "endpoint-independent" => format!(
            "ルーターが外側のアドレスを 1 つ割り当てています（{}）。外から直接届きます",
            seen.join("、")
        ),
        "sequential" => "ルーターが相手ごとに番号順に別のポートを割り当てています。予測して直接\
                         つなぎ、多くは成功します"
            .to_owned(),
        "random" => "ルーターが相手ごとに無作為に別のポートを割り当てています。多数のポートを\
                     同時に試し、だめなら他のノードを経由します"
            .to_owned(),
        _ => "外からどう見えるかを知らせたノードがまだ足りません（3 つ必要です）".to_owned(),
    };
    said(
        "変換",
        format!("{}。{what}{}", own.join("、"), router(nat)),
        bad.then_some(
            "ルーターの UPnP、NAT-PMP、PCP のどれかを有効にするか、このノードの UDP ポートを\
             転送してください。誰からも直接届くようになります。",
        ),
    )
}
