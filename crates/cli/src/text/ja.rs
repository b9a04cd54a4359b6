//! Japanese.

pub(super) mod doctor;
mod gateway;
mod verify;

use super::{Label, Message, loss, or_dash, percent};

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
        Message::DaemonStuck => {
            "デーモンはありますが、要求を受け取りません。停止しているか、固まっています。\
            プロセスを終了し、`enishi up` で起動し直してください。保存した内容は残ります。"
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
        Message::FounderLeaves { name } => format!(
            "このノードはチャンネル {name} の創設者で、その権限の鍵を持つ唯一のノードです。退出すると、管理者の任命も\
             解任も誰にもできなくなり、創設者として戻ることもできません。先に `enishi channel admin {name} \
             MEMBER` で他の管理者を任命してください。創設者がいなくても、管理者は招待と除名を続けられます。それでも\
             退出するには `enishi channel leave {name} --force` を使ってください。"
        ),
        Message::NoOffers => {
            "サービスを提供するメンバーはいません。`enishi channel offer CHANNEL _http._tcp 80` で提供できます。"
                .to_owned()
        }
        Message::Counted { members: 0, .. } => {
            "メッセージを受け取れる他のメンバーはいません。".to_owned()
        }
        Message::Counted { received, members } => {
            format!("全員へのメッセージを、他のメンバー {members} 台中 {received} 台が受け取りました。")
        }
        Message::Discovery { name, on: true } => format!(
            "デバイスを選ばないプログラムは、チャンネル {name} の中で相手を探します。"
        ),
        Message::Discovery { name, on: false } => format!(
            "デバイスを選ばないプログラムは、チャンネル {name} の中では相手を探しません。"
        ),
        Message::NoRoutes => {
            "ネットワークを提供するメンバーはいません。`enishi route share CHANNEL NETWORK` で提供できます。".to_owned()
        }
        Message::NoWireGuardClients => {
            "WireGuard クライアントはいません。`enishi channel wireguard add CHANNEL CLIENT` で追加できます。".to_owned()
        }
        Message::UseTurn { port, realm } => format!(
            "TURN クライアント用のユーザーとパスワードです。表示は今回限りです。サーバーはこのノードの UDP \
             ポート {port}、レルムは {realm} です。"
        ),
        Message::TurnIsOff => "このノードは TURN サーバーではありません。設定の [turn] に \
            `listen = \"0.0.0.0:3478\"` と書くと動きます。"
            .to_owned(),
        Message::TurnUsed { server } => {
            if let Some(relayed) = server.relayed {
                return format!("{relayed} で中継中");
            }
            let error = server.error.as_deref().unwrap_or_default();
            match (server.trouble.as_deref().unwrap_or_default(), server.code) {
                ("waiting", _) => "まだ応答がありません".to_owned(),
                ("no-address", _) => "名前に対応するアドレスがありません".to_owned(),
                ("unreachable", _) => format!("到達できません: {error}"),
                ("silent", _) => "応答しません".to_owned(),
                ("forgotten", _) => "再起動されたため、割り当てを取り直しています".to_owned(),
                (_, Some(401)) => "名前またはパスワードを拒否しました (401)".to_owned(),
                (_, Some(486)) => "このユーザーの割り当てが多すぎます (486)".to_owned(),
                (_, Some(508)) => "空きがありません (508)".to_owned(),
                (_, Some(code)) => format!("拒否しました ({code})"),
                (other, None) => other.to_owned(),
            }
        }
        Message::TurnKeptTrying { server } => {
            let (url, how) = (&server.url, text(&Message::TurnUsed { server }));
            format!(
                "{url} はこのノードを中継していません: {how}。設定は残り、再試行を続けます。\
                 パスワードを変えるには同じコマンドを、やめるには `enishi turn forget {url}` を実行してください。"
            )
        }
        Message::UseWireGuard { channel, client } => format!(
            "スマートフォンの WireGuard でコードを読み取るか、{channel}.conf として保存して \
             `wg-quick up` で使ってください。秘密鍵はここにしか表示されません。\nクライアントを切り離すには:\n  \
             enishi channel wireguard remove {channel} {client}"
        ),
        Message::NoChannels => {
            "チャンネルはありません。`enishi channel create NAME` で作成できます。".to_owned()
        }
        Message::ForwardAdded { id, way } => format!("転送 {id}: {way}"),
        Message::ForwardRemoved { id } => format!("転送 {id} を削除しました。"),
        Message::NoProxies => "プロキシの指定はなく、直接接続します。`enishi proxy tell` で\
            デスクトップの設定をデーモンに伝えられます。"
            .to_owned(),
        Message::ProxyFound { by } => format!("{by} の設定:"),
        Message::ProxyNotFound => "デスクトップにもセッションにもプロキシの指定はありません。\
            以前に伝えた設定は破棄されます。"
            .to_owned(),
        Message::ProxyInputUnfit => {
            "標準入力の内容が `enishi proxy tell --print` の出力ではありません。".to_owned()
        }
        Message::ProxyAnswer {
            url,
            routes,
            source,
            bypass,
            pac,
        } => match (source, bypass, pac) {
            (None, ..) => format!("{url} は直接接続します（プロキシの指定なし）。"),
            (Some(source), Some(entry), _) => {
                format!("{url} は直接接続します（{source}: {entry} は除外）。")
            }
            (Some(source), None, Some(pac)) => {
                format!("{url} は {routes} を使います（{source}: PAC ファイル {pac}）。")
            }
            (Some(source), None, None) => format!("{url} は {routes} を使います（{source}）。"),
        },
        Message::CompanySigned { signature, key } => format!(
            "署名は {signature} にあります。設定ファイルと同じ場所に置いてください。各ノードの設定:\n\
             company_key = \"{key}\""
        ),
        Message::NoForwards => {
            "転送はありません。`enishi forward add CHANNEL` で追加できます。".to_owned()
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
        Message::UseGovernedTicket {
            name,
            ticket,
            uses,
            revoke,
        } => {
            let uses = nodes(*uses);
            format!(
                "相手のマシンで実行するか、上のコードを読み取ってください（{uses}。持っている人は誰でも\
                 参加できます）:\n  enishi channel join {ticket}\n取り消すには:\n  \
                 enishi channel revoke {name} {revoke}"
            )
        }
        Message::InvitationNotStored => "応答するノードが少なく、招待はまだオーバーレイに保存されて\
            いません。このノードが保存を試み続けます。それまで招待は使えません。"
            .to_owned(),
        Message::NoInvitations { name } => format!(
            "このノードが出した有効な招待はありません。`enishi channel invite {name}` で作成できます。"
        ),
        Message::InvitationRevoked => "招待を取り消しました。今後この招待では参加できません。参加済みの\
            メンバーは残ります。除名するには `enishi channel remove` を使ってください。"
            .to_owned(),
        Message::ChannelFounded { name } => format!(
            "このノードはチャンネルの創設者で、管理者を決めます。`enishi channel invite {name}` で他の人を\
             招待できます。"
        ),
        Message::MemberRemoved {
            name,
            member,
            invitation,
        } => {
            let removed = format!(
                "{member} をチャンネル {name} から除名し、チャンネルの秘密を新しくしました。不在の\
                 メンバーには戻ったときに伝わります。"
            );
            match invitation {
                Some(key) => format!(
                    "{removed}\n参加に使われた招待はまだ有効で、持っている人は別のノードで参加できます。\
                     取り消すには:\n  enishi channel revoke {name} {key}"
                ),
                None => removed,
            }
        }
        Message::MemberStands {
            member,
            role,
            admin,
        } => {
            let standing = if *admin { "管理者" } else { "メンバー" };
            let role = role.map_or_else(
                || "役割なし".to_owned(),
                |role| format!("役割は {role}"),
            );
            format!("{member} は{standing}です（{role}）。")
        }
        Message::NoRules => {
            "規則はありません。全メンバーが互いのすべてに接続できます。".to_owned()
        }
        Message::RulesBind => "これらの規則にある接続だけを始められます。その応答は通ります。\
            それ以外は拒否されます。"
            .to_owned(),
        Message::ChannelTitle { name } => format!("このノードから見たチャンネル {name}"),
        Message::ChannelSummary { known, online } => {
            format!("{known} 台を把握、うち {online} 台と通信中（このノードを含む）")
        }
        Message::MembersOmitted { count } => format!("ほか {count} 台は省略"),
        Message::Charter { version, epoch } => {
            format!("版 {version}、秘密は {epoch} 番目")
        }
        Message::UseClosedTicket {
            ticket,
            uses,
            revoke,
        } => {
            let uses = nodes(*uses);
            let join = format!(
                "相手のマシンで実行するか、上のコードを読み取ってください（{uses}。持っている人は誰でも\
                 参加できます）:\n  enishi overlay join {ticket}\n  enishi up"
            );
            match revoke {
                Some(key) => format!("{join}\n取り消すには:\n  enishi overlay revoke {key}"),
                None => join,
            }
        }
        Message::OverlayCreated { name, key } => match key {
            Some(key) => format!(
                "閉じたオーバーレイ {name} を作成しました。`enishi up` でこのノードが動きます。\n{key} の\
                 コピーを安全な場所に保管してください。これを持つ人がメンバーを決め、これがなければ誰も\
                 招待も除名もできません。"
            ),
            None => format!(
                "閉じたオーバーレイ {name} を作成しました。`enishi up` でこのノードが動きます。\n全メンバーが\
                 一つの秘密を共有するため、誰も除名できません。"
            ),
        },
        Message::OverlayJoined { name } => format!(
            "このノードは閉じたオーバーレイ {name} のメンバーになりました。`enishi up` で動きます。"
        ),
        Message::OverlayLeft { name } => format!(
            "閉じたオーバーレイ {name} から退出しました。そこで保存したものはデータディレクトリーに残ります。"
        ),
        Message::OverlayRevoked => {
            "取り消しました。他のメンバーには順に伝わります。停止中のメンバーには\
            復帰したときに伝わります。"
                .to_owned()
        }
        Message::Membership {
            refusal: Some(refusal),
            ..
        } => format!("他のメンバーに拒否されています: {refusal}"),
        Message::Membership {
            days, is_authority, ..
        } => {
            let role = if *is_authority {
                "認証局の鍵を持つメンバー"
            } else {
                "メンバー"
            };
            days.map_or_else(|| role.to_owned(), |days| format!("{role}、残り {days} 日"))
        }
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
        Message::Lost { sequence } => format!("応答 {sequence}: ありません"),
        Message::PingSummary {
            node,
            sent,
            received,
        } => {
            let lost = loss(*sent, *received);
            format!("{node}: 送信 {sent}、受信 {received}、損失 {lost}")
        }
        Message::RoundTrips {
            min,
            avg,
            mdev,
            p99,
            max,
        } => format!(
            "往復時間: 最小 {min:.2} ms、平均 {avg:.2} ms、偏差 {mdev:.2} ms、99 % {p99:.2} ms、最大 \
             {max:.2} ms"
        ),
        Message::Remote {
            version,
            load_per_mille,
        } => {
            let load = percent(*load_per_mille);
            format!("相手ノード: バージョン {version}、負荷 1 コアの {load}")
        }
        Message::RemoteDeclines => "相手ノード: 状態の公開を辞退しています".to_owned(),
        Message::TraceAnswered {
            node,
            answered,
            probes,
        } => format!("{probes} 回のうち {answered} 回、{node} が応答しました。"),
        Message::TraceIncomplete => {
            "担当ノードから応答がありません。経路はここまでです。`enishi doctor` でこのノードの状態を\
             確認できます。"
                .to_owned()
        }
        Message::TraceMissed => {
            "その位置の担当は別のノードです。目的のノードは離脱したか、もともと存在しないか、クライアント\
             です。`enishi ping` はノード自身に尋ねます。"
                .to_owned()
        }
        Message::HeldValue { seq, age_s } => {
            format!("バージョン {seq}、所有者の最後の連絡は {age_s} 秒前")
        }
        Message::Holders { with, asked } => {
            format!("キーに最も近い {asked} ノードのうち {with} ノードが保持しています:")
        }
        Message::Verdict { verdict, is_key } => verify::verdict(*verdict, *is_key).to_owned(),
        Message::VerdictAdvice { verdict, is_key } => verify::advice(*verdict, *is_key).to_owned(),
        Message::CrowdedAdvice { is_key } => verify::crowded(*is_key).to_owned(),
        Message::Paths {
            all_known,
            agreeing,
            paths,
        } => verify::paths(*all_known, *agreeing, *paths),
        Message::Shown { seq, holders } => verify::shown(*seq, *holders),
        Message::Examining => "ノードを検査しています".to_owned(),
        Message::Examined {
            ok,
            warnings,
            problems,
        } => format!("正常 {ok}、警告 {warnings}、問題 {problems}。"),
        Message::MapTitle { node } => format!("{node} から見たオーバーレイ"),
        Message::MapSummary { known, estimate } => {
            format!("既知 {known} ノード、オーバーレイ全体は約 {estimate} ノード")
        }
        Message::MapTwice => {
            "標準出力に書けるのは図か JSON のどちらか一方です。図はファイルに書いてください。".to_owned()
        }
        Message::MapWritten { file } => format!("図を {file} に書き込みました。"),
        Message::SimCost {
            events_per_second,
            memory_bytes_per_node,
        } => {
            let memory = memory_bytes_per_node.map(|bytes| format!("、1 ノードあたりのメモリ {bytes} バイト"));
            let memory = memory.unwrap_or_default();
            format!("毎秒 {events_per_second:.0} イベント{memory}")
        }
        Message::Times { elapsed, left } => format!("経過 {elapsed}、残り {left}"),
        Message::FileUnwritable { file, error } => {
            format!("ファイル {file} に書き込めません: {error}。--svg で別の名前を指定してください。")
        }
        Message::StreamWaiting { service } => {
            format!("サービス {service} へのストリームを待っています")
        }
        Message::StreamBroke { error: Some(error) } => {
            format!("ストリームが切れました: {error}。届いた分は全部ではありません。")
        }
        Message::StreamBroke { error: None } => "ストリームが終わりの前に切れました。相手の\
            プログラム、ノード、または経路が止まりました。届いた分は全部ではありません。"
            .to_owned(),
        Message::Gateway(message) => gateway::text(message),
        Message::Joined { size, peers } => {
            format!("約 {size} ノード、このノードと接続中 {peers}")
        }
        Message::Clients { count } => format!("クライアント {count}"),
        Message::Relays { octets, pairs } => format!("{octets}（現在 {pairs} 組）"),
        Message::ForwardsOpen { count, open } => format!("{count}（接続 {open}）"),
        Message::NotJoined => {
            "単独。`enishi up --bootstrap TICKET` で他のノードに参加できます".to_owned()
        }
    }
}

fn nodes(uses: Option<u8>) -> String {
    uses.map_or_else(
        || "ノード数の制限なし".to_owned(),
        |uses| format!("{uses} ノードまで"),
    )
}

pub(super) fn label(label: Label) -> &'static str {
    match label {
        Label::Node => "ノード",
        Label::Version => "バージョン",
        Label::Uptime => "稼働時間",
        Label::Overlay => "オーバーレイ",
        Label::Class => "クラス",
        Label::Addresses => "アドレス",
        Label::Outside => "外からの見え方",
        Label::Records => "保持レコード",
        Label::Name => "名前",
        Label::Names => "名前解決",
        Label::Proxies => "プロキシ",
        Label::TakesProxy => "使用プロキシ",
        Label::Source => "情報源",
        Label::Says => "内容",
        Label::Configuration => "設定ファイル",
        Label::Company => "会社",
        Label::Desktop => "デスクトップ",
        Label::Environment => "環境変数",
        Label::Discovery => "機器の探索",
        Label::Forwards => "転送",
        Label::Exit => "出口",
        Label::Routes => "経路",
        Label::WireGuard => "WireGuard",
        Label::TurnServer => "TURN サーバー",
        Label::Realm => "レルム",
        Label::Users => "ユーザー",
        Label::User => "ユーザー",
        Label::Allocations => "割り当て",
        Label::ToPeers => "相手へ",
        Label::ToClients => "クライアントへ",
        Label::Peers => "相手",
        Label::Carried => "他ノードのための中継",
        Label::Relays => "他ノードのパケット中継",
        Label::Refused => "拒否",
        Label::RefusedDetail => "（不正、過多、部外パケット）",
        Label::Dropped => "喪失・破棄",
        Label::Channel => "チャンネル",
        Label::Network => "ネットワーク",
        Label::Address => "アドレス",
        Label::Address6 => "アドレス6",
        Label::Interface => "デバイス",
        Label::Service => "サービス",
        Label::Port => "ポート",
        Label::OfferedBy => "提供",
        Label::Texts => "付記",
        Label::UsedBy => "経由",
        Label::ThisNode => "このノード",
        Label::Client => "クライアント",
        Label::Endpoint => "接続元",
        Label::Handshake => "最後のハンドシェイク",
        Label::AddressLost => "アドレスを喪失",
        Label::NobodyOffers => "提供者なし",
        Label::RulesBar => "規則により不可",
        Label::Members => "メンバー",
        Label::Online => "通信中",
        Label::Host => "ホスト",
        Label::Standing => "立場",
        Label::Founder => "創設者",
        Label::Administrator => "管理者",
        Label::Member => "メンバー",
        Label::Charter => "憲章",
        Label::Rules => "規則",
        Label::Rule => "番号",
        Label::From => "始める側",
        Label::To => "相手",
        Label::Ports => "ポート",
        Label::Everything => "すべて",
        Label::Invitation => "招待",
        Label::Uses => "人数",
        Label::Any => "無制限",
        Label::Ends => "期限まで",
        Label::CameBy => "参加したホスト",
        Label::InSession => "セッション経由",
        Label::NotInTouch => "通信なし",
        Label::Role => "役割",
        Label::Path => "経路",
        Label::RoundTrip => "往復時間",
        Label::Sent => "送信",
        Label::Received => "受信",
        Label::Check => "検査",
        Label::Time => "時間",
        Label::Result => "結果",
        Label::Id => "ID",
        Label::Authority => "認証局",
        Label::Membership => "このノード",
        Label::Admitted => "認証済み",
        Label::TurnedAway => "拒否（メッセージ / 証明）",
        Label::Revoked => "取り消し済み",
        Label::Hop => "ホップ",
        Label::State => "状態",
        Label::Mean => "平均",
        Label::Loss => "損失",
        Label::Load => "負荷",
        Label::ToNext => "次への経路",
        Label::Reported => "報告あり",
        Label::GaveBack => "返却",
        Label::Declined => "辞退",
        Label::Forwarding => "転送",
        Label::Open => "接続数",
        Label::Works => "正常",
        Label::Lost => "応答なし",
        Label::InCharge => "担当",
        Label::InChargeDeclined => "担当、辞退",
        Label::Direct => "直接",
        Label::Relayed => "中継",
        Label::Unconnected => "未接続",
        Label::Itself => "このノード",
        Label::Unknown => "不明",
        Label::Holder => "保持ノード",
        Label::Held => "内容",
        Label::Key => "キー",
        Label::PathsAgreeing => "経路",
        Label::NodesAsked => "問い合わせたノード",
        Label::Record => "レコード",
        Label::Owner => "所有者",
        Label::Density => "周囲のノード",
        Label::Unusual => "不自然に密集しているか、離れています",
        Label::AsElsewhere => "他の場所と同じ密度",
        Label::Nearest => "最も近いノード",
        Label::Blank => "",
        Label::Removed => "削除の印",
        Label::Nothing => "なし",
        Label::Silent => "応答なし",
        Label::Ok => "正常",
        Label::Warning => "警告",
        Label::Problem => "問題",
        Label::Position => "位置",
        Label::Near => "近傍",
        Label::Long => "長距離リンク",
        Label::Known => "ピア経由で既知",
        Label::Found => "問い合わせで発見",
        Label::Consent => "同意",
        Label::Gateway => "ゲートウェイ",
        Label::OtherOverlay => "相手のオーバーレイ",
        Label::LetOut => "外への利用",
        Label::LetIn => "外からの利用",
        Label::Limits => "上限",
        Label::Document => "文書",
        Label::Takes => "受け取る文書",
        Label::Gives => "渡す文書",
        Label::Everybody => "全員",
        Label::Counts => "有効",
    }
}
