//! What `enishi doctor net` says, in Japanese.

use std::net::SocketAddr;

use enishi_api::{Finding, MappingLifetime, Nat};

use super::{router, said};
use crate::text::{Diagnosis, Message};

/// Words what was found out about the node's network.
pub(super) fn diagnosis(finding: &Finding, bad: bool) -> Diagnosis {
    match finding {
        Finding::Translation { nat, own } => translation(nat, own, bad),
        Finding::Lifetime(lifetime) => self::lifetime(lifetime, bad),
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
            let is_silent = server.trouble.as_deref() == Some("silent");
            if bad && is_silent && !server.url.contains('?') {
                let advice = "UDP が届かないのかもしれません。サーバーが TCP も受けるなら、`enishi turn use \
                              URL?transport=tcp` で使えます。";
                return said("TURN サーバー", format!("{}: {how}", server.url), Some(advice));
            }
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
            "ルーターが外側のアドレスを 1 つ割り当てています（{}）。双方が送れば直接届きます",
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

fn lifetime(lifetime: &MappingLifetime, bad: bool) -> Diagnosis {
    let what = match lifetime.translated {
        true => "ルーター",
        false => "ファイアウォール",
    };
    let every = lifetime.keep_alive_ms as f64 / 1e3;
    let kept = format!("通信のない経路は {every} 秒ごとに使って保ちます");
    let detail = match (lifetime.at_least_s, lifetime.less_than_s) {
        _ if lifetime.unlimited => "間に、通信のない経路を忘れるものはありません".to_owned(),
        (Some(0), Some(less)) => {
            format!("{what}は通信のない経路を {less} 秒足らずで忘れます。{kept}")
        }
        (Some(least), Some(less)) => {
            format!("{what}は通信のない経路を {least}〜{less} 秒で忘れます。{kept}")
        }
        (Some(least), None) if lifetime.measuring => {
            format!("{what}は通信のない経路を {least} 秒以上保ちます。測定中です")
        }
        (Some(least), None) => {
            format!("{what}は通信のない経路を {least} 秒以上保ちます。{kept}")
        }
        (None, _) if lifetime.measuring => {
            "測定中です。数分後にもう一度実行してください".to_owned()
        }
        (None, _) => "通信のない経路がいつまで保たれるかは不明です。測定を手伝えるノードに届き\
                      ませんでした。後でまた試します"
            .to_owned(),
    };
    said(
        "経路の寿命",
        detail,
        bad.then_some(
            "ルーターは少なくとも 2 分保つべきです（RFC 4787）。自分のルーターなら UDP タイムアウトを\
             それ以上にしてください。待機中の通信が減ります。",
        ),
    )
}
