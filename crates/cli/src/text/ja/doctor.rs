//! What `enishi doctor` says, in Japanese.

mod net;

use enishi_api::{BootstrapSource, Check, Finding, Nat, Outcome, ValueStep};

use crate::text::{Diagnosis, octets, or_dash, protocols};

/// Words whether the daemon is there.
pub(crate) fn daemon(problem: Option<&str>) -> Diagnosis {
    match problem {
        None => said("デーモン", "動作中で応答します", None),
        Some(reason) => said(
            "デーモン",
            reason,
            Some("起動するまで他の検査はできません。起動しない場合は、その理由が表示されます。"),
        ),
    }
}

/// Words a check.
pub(crate) fn diagnosis(check: &Check) -> Diagnosis {
    let Check { outcome, finding } = check;
    let bad = *outcome != Outcome::Ok;
    match finding {
        Finding::DataDirectory {
            path,
            error,
            free_bytes,
        } => directory(path, error.as_deref(), *free_bytes, bad),
        Finding::Files { open, limit } => said(
            "開いたファイル",
            format!("{limit} のうち {open} を使用中"),
            bad.then_some(
                "上限を上げてください。例: `enishi up` の前に `ulimit -n 4096`、またはユニットに \
                 LimitNOFILE=4096。",
            ),
        ),
        Finding::Neighbours {
            near,
            long,
            seeking,
        } => neighbours(*near, *long, *seeking),
        Finding::Bootstrap { sources } => bootstrap(sources, bad),
        Finding::Position { .. } => position(finding),
        Finding::Values {
            failed,
            replicas,
            time_ms,
        } => values(*failed, *replicas, *time_ms),
        Finding::Size { estimate, known } => said(
            "規模",
            format!("オーバーレイは約 {estimate} ノード、知っているのは {known} ノード"),
            bad.then_some(
                "推定が小さすぎます。起動直後なら自然に直ります。そうでなければ周囲のリングが\
                 不完全です。1 分後にもう一度実行してください。",
            ),
        ),
        Finding::Clock {
            stepped_s,
            ahead_s,
            peers,
        } => clock(*stepped_s, *ahead_s, *peers, bad),
        Finding::Addresses { .. } => addresses(finding, bad),
        Finding::Sessions { direct, relayed } => said(
            "セッション",
            format!("直接 {direct}、中継 {relayed}"),
            bad.then_some(
                "どのピアにも直接届いていないため、遅くなります。ファイアウォールで UDP を通すか、\
                 `listen` のポートを転送してください。",
            ),
        ),
        Finding::Packets {
            port,
            direct,
            by_session,
        } => said(
            "パケット",
            format!("UDP ポート {port}、直接届くメンバー {direct}、セッション経由 {by_session}"),
            bad.then_some(
                "セッション経由のパケットは遅くなります。双方のファイアウォールでこの UDP ポートを\
                 通してください。始まって数秒は、まだ調べている途中のことがあります。",
            ),
        ),
        Finding::Channel { .. } => channel(finding, bad),
        Finding::Members {
            channel,
            asked,
            silent,
        } => members(channel, *asked, silent),
        Finding::Names { .. } => names(finding),
        Finding::Records { held, own } => said(
            "レコード",
            format!("オーバーレイのために {held}、自分のもの {own}"),
            None,
        ),
        Finding::Refused {
            count,
            uptime_s,
            most,
        } => said(
            "拒否",
            match count {
                0 => "起動後なし".to_owned(),
                _ => format!("{} 分間に {count}、主に {most}", uptime_s / 60),
            },
            bad.then_some(
                "このノードが受け付けないものを誰かが送っています。バージョンの異なるノードか、悪意の\
                 あるノードです。`enishi status` ですべてのカウンターを確認できます。",
            ),
        ),
        Finding::Notice { text } => said("お知らせ", text, None),
        Finding::Translation { .. }
        | Finding::Lifetime(_)
        | Finding::Paths { .. }
        | Finding::Proxies { .. }
        | Finding::TurnServer(_)
        | Finding::Passage { .. }
        | Finding::Blocked { .. }
        | Finding::NoPassage => net::diagnosis(finding, bad),
    }
}

fn directory(path: &str, error: Option<&str>, free: Option<u64>, bad: bool) -> Diagnosis {
    let free = or_dash(free.map(octets));
    let title = "データディレクトリー";
    match error {
        Some(error) => said(
            title,
            format!("{path} に書き込めません: {error}"),
            Some(
                "ディスクの空きを作るか、デーモンのユーザーに書き込みを許可してください。それまで\
                 新しいものは保存されません。",
            ),
        ),
        None => said(
            title,
            format!("{path} に書き込めます。空き {free}"),
            bad.then_some("ディスクがいっぱいになる前に空きを作ってください。"),
        ),
    }
}

fn neighbours(near: u32, long: u32, seeking: bool) -> Diagnosis {
    let title = "近傍";
    match (near, seeking) {
        (0, true) => said(
            title,
            "なし。既知のノードがありますが、どれも応答しません",
            Some(
                "ネットワークと、ファイアウォールが UDP を止めていないかを確認してください。相手が\
                 移動した場合は、新しい招待で `enishi up --bootstrap TICKET` を実行してください。",
            ),
        ),
        (0, false) => said(
            title,
            "なし。このノードは単独です",
            Some(
                "`enishi up --bootstrap TICKET` で参加してください。TICKET は相手の `enishi invite` \
                 で得られます。",
            ),
        ),
        _ => said(
            title,
            format!("リング上に {near}、長距離リンク {long}"),
            None,
        ),
    }
}

fn bootstrap(sources: &[BootstrapSource], bad: bool) -> Diagnosis {
    let one = |source: &BootstrapSource| {
        let name = match source.source.as_str() {
            "invitation" => "招待",
            "earlier-runs" => "前回までの実行",
            "local-network" => "ローカルネットワーク",
            "servers" => "サーバー",
            "dns-list" => "DNS の一覧",
            "mainline" => "Mainline DHT",
            other => other,
        };
        match &source.error {
            Some(error) if source.found == 0 => format!("{name}: なし ({error})"),
            _ => format!(
                "{name}: {} ノード、うち現在のピア {}",
                source.found, source.peers
            ),
        }
    };
    let told: Vec<String> = sources.iter().map(one).collect();
    said(
        "見つけた方法",
        told.join("、"),
        bad.then_some(
            "誰も見つかりませんでした。設定の名前、アドレス、ポートと、ファイアウォールが UDP や\
             ローカルネットワークの mDNS (ポート 5353) を止めていないかを確認してください。",
        ),
    )
}

fn position(finding: &Finding) -> Diagnosis {
    let Finding::Position {
        asked,
        agree,
        disagree,
        strangers,
    } = finding
    else {
        return said("位置", "", None);
    };
    let who = if *strangers {
        "他人"
    } else {
        "近傍（他人はいません）"
    };
    let silent = asked.saturating_sub(agree + disagree);
    let detail = format!(
        "{who} {asked} ノードのうち、このノードを見つけた {agree}、見つけなかった {disagree}、無応答 \
         {silent}"
    );
    let advice = match (agree, disagree) {
        (0, 0) => Some(
            "誰も調べませんでした。辞退しているか、不在です。1 分後にもう一度実行してください。",
        ),
        (0, _) => Some(
            "他のノードがこのノードを見つけられず、届くはずのものが届きません。起動や分断の直後なら\
             自然に直ります。そうでなければ再起動し、UDP が届くことを確認してください。",
        ),
        (_, 0) => None,
        _ => Some(
            "リングが変化中か、誤った応答をするノードがあります。1 分後にもう一度実行してください。",
        ),
    };
    said("位置", detail, advice)
}

fn values(failed: Option<ValueStep>, replicas: u32, time_ms: u64) -> Diagnosis {
    let title = "保存";
    match failed {
        None => said(
            title,
            format!("値を {replicas} ノード以上に保存し、読み出し、削除しました（{time_ms} ms）"),
            None,
        ),
        Some(ValueStep::Put) => said(
            title,
            "オーバーレイに値を保存できません",
            Some(
                "担当ノードの応答が足りないか、空きがありません。近傍と位置の検査を確認し、1 分後に\
                 もう一度実行してください。",
            ),
        ),
        Some(ValueStep::Get) => said(
            title,
            "保存した値を読み出せません",
            Some(
                "担当ノードが入れ替わり中か、保持していません。1 分後にもう一度実行してください。",
            ),
        ),
        Some(ValueStep::Remove) => said(
            title,
            "値を保存して読み出せましたが、削除できません",
            Some("値は 1 分以内に自然に消えます。その後もう一度実行してください。"),
        ),
    }
}

fn clock(stepped_s: i64, ahead_s: Option<i64>, peers: u32, bad: bool) -> Diagnosis {
    let detail = match ahead_s {
        Some(ahead) if ahead < 0 => format!("{peers} ピアより {} 秒遅れ", -ahead),
        Some(ahead) => format!("{peers} ピアより {ahead} 秒進み"),
        None => "時刻を知らせるピアがありません".to_owned(),
    };
    let detail = match stepped_s {
        0 => detail,
        _ => format!("{detail}。起動後に {stepped_s} 秒変更されました"),
    };
    said(
        "時計",
        detail,
        bad.then_some(
            "時計を合わせ（chrony や systemd-timesyncd が便利です）、デーモンを再起動してください。\
             時計が狂っていると、このノードの値が古い値に負けることがあります。",
        ),
    )
}

fn addresses(finding: &Finding, bad: bool) -> Diagnosis {
    let Finding::Addresses { own, seen, nat } = finding else {
        return said("アドレス", "", None);
    };
    let title = "アドレス";
    let own_text: Vec<String> = own.iter().map(ToString::to_string).collect();
    let own_text = own_text.join(", ");
    if own.is_empty() {
        let advice = "誰もこのノードに接続できません。設定の `listen` と、ネットワークが動作している\
                      ことを確認してください。";
        return said(title, "なし", Some(advice));
    }
    let seen_text: Vec<String> = seen
        .iter()
        .map(|sighting| format!("{}（{} ピア）", sighting.address, sighting.peers))
        .collect();
    let seen_text = match seen_text.is_empty() {
        true => "ピアからどう見えるかは不明".to_owned(),
        false => format!("ピアから見えるアドレス {}", seen_text.join(", ")),
    };
    let loopback = own.iter().all(|address| address.ip().is_loopback());
    let advice = if loopback {
        "このマシンのノードからしか届きません。設定の `listen` でネットワークのアドレスを指定して\
         ください。"
    } else {
        "このノードは NAT の内側です。こちらから接続した相手からは届きます。誰からでも接続できるように\
         するには、ルーターで UDP ポートを転送してください。"
    };
    said(
        title,
        format!("{own_text}。{seen_text}{}", router(nat)),
        bad.then_some(advice),
    )
}

/// ルーターが要求に応じてポートを開くかどうか。
fn router(nat: &Nat) -> String {
    let Some(router) = nat.router else {
        return String::new();
    };
    let spoken = protocols(router);
    match nat.mapped {
        Some(mapped) => format!("。ルーターが {mapped} を転送しています（{spoken}）"),
        None if spoken.is_empty() => "。ルーターは要求に応じてポートを開きません".to_owned(),
        None => format!("。ルーターがポートの転送を拒否しました（{spoken}）"),
    }
}

fn channel(finding: &Finding, bad: bool) -> Diagnosis {
    let Finding::Channel {
        name,
        address,
        interface,
        up,
        devices,
        notice,
    } = finding
    else {
        return said("チャンネル", "", None);
    };
    let device = match (interface, up) {
        (Some(interface), Some(false)) => format!("デバイス {interface}（停止中）"),
        (Some(interface), _) => format!("デバイス {interface}"),
        (None, _) => "デバイスなし".to_owned(),
    };
    let notice_text = notice.as_ref().map(|notice| format!("。{notice}"));
    let detail = format!(
        "{name}: アドレス {}、{device}{}",
        or_dash(address.as_ref()),
        notice_text.unwrap_or_default()
    );
    let advice = if address.is_none() {
        Some(
            "まだアドレスがありません。起動後数秒かかります。続く場合は近傍と保存の検査を確認して\
             ください。"
                .to_owned(),
        )
    } else if *up == Some(false) {
        let interface = or_dash(interface.as_ref());
        Some(format!(
            "`ip link set {interface} up` で有効にするか、デーモンを再起動してください。"
        ))
    } else if interface.is_none() && *devices {
        Some(
            "IP パケットが流れません。デーモンを root か CAP_NET_ADMIN で実行し、/dev/net/tun がある\
             ことを確認してください。"
                .to_owned(),
        )
    } else {
        None
    };
    Diagnosis {
        title: "チャンネル",
        detail,
        advice: advice.filter(|_| bad),
    }
}

fn names(finding: &Finding) -> Diagnosis {
    let Finding::Names {
        how,
        listening,
        asked,
        found,
        notice,
    } = finding
    else {
        unreachable!("only names are told here");
    };
    let listening: Vec<String> = listening.iter().map(ToString::to_string).collect();
    let detail = match (asked, found) {
        (Some(asked), true) => format!("{how} による。{asked} はこのホストに解決されます"),
        (Some(asked), false) => format!("{how} による。{asked} がこのホストに解決されません"),
        (None, _) if listening.is_empty() && notice.is_none() => {
            "チャンネルがないため、まだなし".to_owned()
        }
        (None, _) => format!("{how} による。応答アドレス {}", listening.join("、")),
    };
    let advice = match (asked, found) {
        (Some(asked), false) => Some(format!(
            "`dig @{} {asked}` でこのノードが応答するか確認できます。応答するなら、別のプログラムが\
             システムのリゾルバー設定を変更しています。",
            listening
                .first()
                .map_or("アドレス", |first| first.trim_end_matches(":53"))
        )),
        _ => None,
    };
    said("名前解決", detail, notice.clone().or(advice).as_deref())
}

fn members(channel: &str, asked: u32, silent: &[String]) -> Diagnosis {
    let answered = asked.saturating_sub(u32::try_from(silent.len()).unwrap_or(u32::MAX));
    let detail = format!("{channel}: 他の {asked} メンバーのうち {answered} が応答");
    if silent.is_empty() {
        return said("メンバー", detail, None);
    }
    let detail = format!("{detail}。無応答: {}", silent.join(", "));
    said(
        "メンバー",
        detail,
        Some(
            "電源が切れているのかもしれません。そうでなければ、そこで `enishi doctor` を実行してください。",
        ),
    )
}

fn said(title: &'static str, detail: impl Into<String>, advice: Option<&str>) -> Diagnosis {
    Diagnosis {
        title,
        detail: detail.into(),
        advice: advice.map(str::to_owned),
    }
}
