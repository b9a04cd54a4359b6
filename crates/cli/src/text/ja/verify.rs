//! `verify` in Japanese.

use enishi_api::Verdict;

pub(super) const fn verdict(verdict: Verdict, is_key: bool) -> &'static str {
    match (verdict, is_key) {
        (Verdict::Confirmed, false) => {
            "確認できました: この ID のノードは ID が定める位置にあり、そこで鍵を証明しました。"
        }
        (Verdict::Confirmed, true) => {
            "確認できました: このキーを担当するノードの過半数が同じレコードを示しています。"
        }
        (Verdict::Disputed, false) => {
            "一致しません: ノードは応答しますが、多くの経路は別のノードで終わりました。"
        }
        (Verdict::Disputed, true) => {
            "一致しません: レコードを示すノードはありますが、担当ノードの過半数は示していません。"
        }
        (Verdict::Unknown, false) => {
            "見つかりません: この ID を証明したノードに着いた経路はありません。"
        }
        (Verdict::Unknown, true) => "見つかりません: このキーのレコードを示すノードはありません。",
    }
}

pub(super) const fn advice(verdict: Verdict, is_key: bool) -> &'static str {
    match (verdict, is_key) {
        (Verdict::Confirmed, _) => "",
        (Verdict::Disputed, false) => {
            "近くのノードが今参加または離脱したのかもしれません。1 分後にもう一度試してください。\
             それでも一致しなければ、誰かがこのノードへの問い合わせを逸らしています。この ID の鍵を持つ\
             のは本人だけなので送信内容は安全ですが、電話など別の手段で ID 全体を持ち主と照合し、代わりに\
             応答する者を信用しないでください。"
        }
        (Verdict::Disputed, true) => {
            "今保存または変更されたのかもしれません。1 分後にもう一度試してください。それでも一致しな\
             ければ、この値に頼らないでください。値と上の所有者を、電話など別の手段で保存した人と照合し、\
             もう一度保存してもらってください。"
        }
        (Verdict::Unknown, false) => {
            "停止中か、自分の位置を持たないクライアントか、別のオーバーレイにいるのかもしれません。ID を\
             一文字ずつ確認してください。持ち主の側で動いているなら、あなたから隠されています。ID 全体で \
             `enishi ping` を試すか、そのノードの招待で参加してください。"
        }
        (Verdict::Unknown, true) => {
            "キーの綴りを確認してください。保存した人が読めるなら、あなたから隠されています。もう一度保存\
             してもらってください。"
        }
    }
}

pub(super) const fn crowded(is_key: bool) -> &'static str {
    if is_key {
        "このキーの近くのノードが不自然に密集しているか、離れています。誰かがキーを囲むために鍵を作った\
         可能性があります。周囲の領域にも問い合わせました。重要な値には別のキーを選んでください。"
    } else {
        "このノードの位置の近くのノードが不自然に密集しているか、離れています。誰かがここを囲むために鍵を\
         作った可能性があります。周囲の領域も探しました。"
    }
}

pub(super) fn paths(all_known: bool, agreeing: u32, paths: u32) -> String {
    match all_known {
        true => "不要: このノードはオーバーレイの全ノードを知っています".to_owned(),
        false => format!("{paths} 本のうち {agreeing} 本が一致"),
    }
}

pub(super) fn shown(seq: u64, holders: u32) -> String {
    format!("バージョン {seq}、{holders} 個のノードが示しています")
}
