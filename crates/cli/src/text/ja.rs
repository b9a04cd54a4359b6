//! Japanese.

use super::{Label, Message, or_dash};

pub(super) fn text(message: &Message<'_>) -> String {
    match message {
        Message::NoDaemon { data } => {
            let data = data.display();
            format!(
                "{data} では enishi が動いていません。`enishi up --data {data}` で起動してください。"
            )
        }
        Message::DaemonForbidden { data } => format!(
            "{} の enishi は別のユーザーのものです。そのユーザーで実行するか、--data で自分のデータ\
             ディレクトリーを指定してください。",
            data.display()
        ),
        Message::SocketPathUnfit { data, error } => format!(
            "{} のデーモンに接続できません: {error}。--data のパスを確認してください。",
            data.display()
        ),
        Message::DaemonBroke { error } => format!(
            "デーモンとの接続が切れました: {error}。ログを確認して、もう一度実行してください。"
        ),
        Message::DaemonSilent => {
            "デーモンは答える前に停止しました。ログを確認して、もう一度実行してください。"
                .to_owned()
        }
        Message::AnswerStrange => {
            "デーモンの応答を解釈できません。コマンドとバージョンが異なります。\
            `enishi down` で停止し、起動し直してください。"
                .to_owned()
        }
        Message::PasswordUnreadable { name, error } => {
            format!("パスワードファイル {name} を読めません: {error}。")
        }
        Message::PasswordUnfit { name, max } => format!(
            "パスワードファイル {name} には 1 から {max} オクテットの UTF-8 テキストが必要です。"
        ),
        Message::InputUnreadable { error } => format!("標準入力を読めません: {error}。"),
        Message::ValueTooLong { max } => format!(
            "値は {max} オクテットまでです。大きい値は分割するか、リンクを保存してください。"
        ),
        Message::TicketEmpty => "標準入力に招待がありません。".to_owned(),
        Message::Waiting => "デーモンの応答を待っています".to_owned(),
        Message::Stopped => "デーモンを停止します。".to_owned(),
        Message::ChannelReady {
            name,
            address,
            interface,
        } => {
            let address = or_dash(*address);
            let device = interface.map_or_else(
                || "ネットワークデバイスなし".to_owned(),
                |interface| format!("ネットワークデバイス {interface}"),
            );
            format!("チャンネル {name} でのこのノードのアドレスは {address} です（{device}）。")
        }
        Message::ChannelLeft { name } => format!("チャンネル {name} から退出しました。"),
        Message::NoChannels => {
            "チャンネルはありません。`enishi channel create NAME` で作成できます。".to_owned()
        }
        Message::NoPeers => "まだピアがいません。`enishi invite` の招待を使い、別のノードを \
            `enishi up --bootstrap TICKET` で起動してください。"
            .to_owned(),
        Message::UseOverlayTicket { ticket } => format!(
            "相手のマシンで実行するか、上のコードを読み取ってください:\n  enishi up --bootstrap {ticket}"
        ),
        Message::UseChannelTicket { ticket } => format!(
            "相手のマシンで実行するか、上のコードを読み取ってください（持っている人は誰でも参加できます）:\n  \
             enishi channel join {ticket}"
        ),
        Message::Stored { replicas, seq } => {
            format!("バージョン {seq} として保存しました。{replicas} 個のノードが保持しています。")
        }
        Message::Removed => "削除しました。".to_owned(),
        Message::Pong {
            sequence,
            rtt_ms,
            path,
        } => {
            format!("応答 {sequence}: {rtt_ms:.2} ms、{path}")
        }
        Message::Lost { sequence } => format!("応答 {sequence}: 時間内に届きませんでした"),
        Message::PingSummary {
            node,
            sent,
            received,
        } => {
            format!("{node}: 送信 {sent}、受信 {received}")
        }
        Message::RoundTrips { min, avg, p99, max } => format!(
            "往復時間: 最小 {min:.2} ms、平均 {avg:.2} ms、99 % {p99:.2} ms、最大 {max:.2} ms"
        ),
        Message::Hop {
            number,
            node,
            rtt_ms,
            path,
        } => {
            let rtt = rtt_ms.map_or_else(|| "-".to_owned(), |rtt_ms| format!("{rtt_ms:.2} ms"));
            format!("{number:>2}  {node}  {rtt:>10}  {path}")
        }
        Message::TraceIncomplete => {
            "担当ノードから応答がありません。経路はここまでです。".to_owned()
        }
        Message::StreamWaiting { service } => {
            format!("サービス {service} へのストリームを待っています")
        }
        Message::StreamBroke { error } => format!("ストリームが切れました: {error}。"),
        Message::Joined { size, peers } => {
            format!("約 {size} ノード、このノードと接続中 {peers}")
        }
        Message::Clients { count } => format!("クライアント {count}"),
        Message::NotJoined => {
            "単独。`enishi up --bootstrap TICKET` で他のノードに参加できます".to_owned()
        }
    }
}

pub(super) fn label(label: Label) -> &'static str {
    match label {
        Label::Node => "ノード",
        Label::Version => "バージョン",
        Label::Uptime => "稼働時間",
        Label::Overlay => "オーバーレイ",
        Label::Class => "クラス",
        Label::Addresses => "アドレス",
        Label::Records => "保持レコード",
        Label::Refused => "拒否",
        Label::RefusedDetail => "（不正、過多、部外パケット）",
        Label::Dropped => "喪失・破棄",
        Label::Channel => "チャンネル",
        Label::Network => "ネットワーク",
        Label::Address => "アドレス",
        Label::Address6 => "アドレス6",
        Label::Interface => "デバイス",
        Label::Members => "メンバー",
        Label::Role => "役割",
        Label::Path => "経路",
        Label::RoundTrip => "往復時間",
        Label::Sent => "送信",
        Label::Received => "受信",
        Label::Check => "検査",
        Label::Time => "時間",
        Label::Result => "結果",
    }
}
