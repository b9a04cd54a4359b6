//! What is said of gateways, in Japanese.

use crate::text::Gateway;

pub(crate) fn text(message: &Gateway<'_>) -> String {
    match message {
        Gateway::NoId { what } => {
            format!("{what} には ID 全体 (a–z と 2–7 の 52 文字) を指定してください。")
        }
        Gateway::NoMember { member } => format!(
            "このノードが知るチャンネルのメンバーのうち、`{member}` という名前のものを一つに決められません。\
             ノード ID 全体を指定してください (`enishi channel show`)。"
        ),
        Gateway::Signed { name } => format!(
            "ゲートウェイの運用者に渡してください。運用者は `enishi gateway accept` で保存します。\n\
             取り消すには:\n  enishi overlay revoke {name}"
        ),
        Gateway::Accepted { overlay } => format!(
            "オーバーレイ {overlay} の同意を保存しました。中継できるものは `enishi gateway show` で\
             確認できます。"
        ),
        Gateway::Forgotten { overlay } => {
            format!("オーバーレイ {overlay} の同意を削除しました。")
        }
        Gateway::Runs => "ゲートウェイが動いています。Ctrl-C で終了します。".to_owned(),
        Gateway::Limits {
            flows,
            octets_per_s,
            idle_s,
        } => format!("接続 {flows} 本、毎秒 {octets_per_s} オクテット、無通信 {idle_s} 秒"),
        Gateway::HashMissing => {
            "監査ログにそのハッシュの行はありません。ハッシュを控えた後に書き換えられたか、\
            古いためファイルごと削除されています。"
                .to_owned()
        }
        Gateway::Whole { lines, hash } => format!(
            "監査ログは完全です ({lines} 行)。最後のハッシュを別の場所に控えておけば、後で --expect で\
             確認できます:\n{hash}"
        ),
        Gateway::NotLogged => {
            "監査ログはまだありません。このノードはゲートウェイを動かしていません。".to_owned()
        }
        Gateway::NoGateways => {
            "ゲートウェイの同意を示すメンバーは、このノードのチャンネルにいません。".to_owned()
        }
    }
}
