//! A channel as one node sees it: the node in the middle, the others around it.
//!
//! A line is as wide as its traffic, coloured by its round trip, whole where packets pass
//! straight from address to address and dashed where they pass in the session. Members with
//! which the node is not in touch have no line.

use std::f64::consts::TAU;
use std::fmt::Write;

use enishi_api::{Channel, Member};

use super::{begin, class_of, escaped, figure, round_trips, text};
use crate::text::{Label, Language, Message, octets};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 900.0;
const CENTRE: (f64, f64) = (WIDTH / 2.0, 430.0);
const RADIUS: f64 = 290.0;
/// More members than these would cover each other; those with the least traffic are left out.
const MEMBERS_MAX: usize = 48;
/// With more members than these, every other one is nearer to the centre.
const ONE_CIRCLE_MAX: usize = 20;
const INNER: f64 = 0.62;
/// How much of a host's name is shown, in characters.
const NAME_CHARACTERS: usize = 22;
/// How far from its line a figure stands, in pixels.
const FIGURE_AWAY: f64 = 26.0;
/// The widths of lines without traffic and with the most, in pixels.
const WIDTH_MIN: f64 = 1.5;
const WIDTH_MAX: f64 = 12.0;
/// The traffic of the widest line, in octets: a tebioctet.
const TRAFFIC_MAX: f64 = (1_u64 << 40) as f64;

/// Draws a channel as an SVG document of its own.
pub(crate) fn draw(channel: &Channel, language: Language) -> String {
    let mut svg = begin(WIDTH, HEIGHT);
    let is_me = |member: &&Member| member.path == "self";
    let mut others: Vec<&Member> = channel.member_list.iter().filter(|m| !is_me(m)).collect();
    others.sort_by_key(|member| std::cmp::Reverse((member.path != "-", traffic(member))));
    let omitted = others.len().saturating_sub(MEMBERS_MAX);
    others.truncate(MEMBERS_MAX);
    others.sort_by(|a, b| (&a.host, &a.node_id).cmp(&(&b.host, &b.node_id)));
    heading(&mut svg, channel, omitted, language);
    let places: Vec<Place<'_>> = (0..others.len()).map(|at| Place::of(&others, at)).collect();
    places
        .iter()
        .for_each(|place| line(&mut svg, place, language));
    for place in &places {
        dot(&mut svg, place.at(1.0), 7.0, place.member);
        name(&mut svg, place);
    }
    if let Some(me) = channel.member_list.iter().find(is_me) {
        dot(&mut svg, CENTRE, 11.0, me);
        let (x, y) = CENTRE;
        text(
            &mut svg,
            (x, y + 28.0),
            "figure strong",
            &shortened(&me.host),
        );
    }
    legend(&mut svg, language);
    svg.push_str("</svg>\n");
    svg
}

/// A member and where it is drawn.
struct Place<'a> {
    member: &'a Member,
    /// Its direction as a share of the circle, clockwise from the top.
    turn: f64,
    radius: f64,
}

impl<'a> Place<'a> {
    fn of(members: &[&'a Member], at: usize) -> Self {
        let nearer = members.len() > ONE_CIRCLE_MAX && at % 2 == 1;
        Self {
            member: members[at],
            turn: at as f64 / members.len() as f64,
            radius: if nearer { RADIUS * INNER } else { RADIUS },
        }
    }

    /// Returns the point at a share of the way from the centre.
    fn at(&self, share: f64) -> (f64, f64) {
        let (sine, cosine) = (self.turn * TAU).sin_cos();
        let (x, y) = CENTRE;
        let away = self.radius * share;
        (x + sine * away, y - cosine * away)
    }
}

fn heading(svg: &mut String, channel: &Channel, omitted: usize, language: Language) {
    let title = language.text(&Message::ChannelTitle {
        name: &channel.name,
    });
    let mut summary = language.text(&Message::ChannelSummary {
        known: channel.members,
        online: channel.online,
    });
    if omitted > 0 {
        let omitted = language.text(&Message::MembersOmitted { count: omitted });
        summary = format!("{summary}; {omitted}");
    }
    text(svg, (24.0, 36.0), "title", &title);
    text(
        svg,
        (24.0, 58.0),
        "",
        &format!("{}: {summary}", channel.network),
    );
}

fn line(svg: &mut String, place: &Place<'_>, language: Language) {
    let member = place.member;
    if member.path == "-" {
        return;
    }
    let (x, y) = CENTRE;
    let (to_x, to_y) = place.at(1.0);
    let class = class_of(member.rtt_ms);
    let session = if ["session", "relayed"]
        .iter()
        .any(|by| member.path.starts_with(by))
    {
        " session"
    } else {
        ""
    };
    let traffic = format!(
        "{} {}, {} {}",
        language.label(Label::Sent),
        octets(member.bytes_sent),
        language.label(Label::Received),
        octets(member.bytes_received)
    );
    let _ = write!(
        svg,
        "<path class=\"line {class}{session}\" style=\"stroke-width:{:.1}\" \
         d=\"M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}\"><title>{}</title></path>",
        width(traffic_share(member)),
        escaped(&format!("{}; {traffic}", member.path)),
    );
    if let Some(rtt_ms) = member.rtt_ms {
        // Beside the line, on the side that is clear of the name.
        let (sine, cosine) = (place.turn * TAU).sin_cos();
        let (x, y) = place.at(0.65);
        let beside = (x + cosine * FIGURE_AWAY, y + sine * FIGURE_AWAY / 2.0 + 3.0);
        text(svg, beside, "figure", &figure(rtt_ms));
    }
}

fn traffic(member: &Member) -> u64 {
    member.bytes_sent.saturating_add(member.bytes_received)
}

/// The traffic on a logarithmic scale from 0 to 1.
fn traffic_share(member: &Member) -> f64 {
    let share = (traffic(member) as f64 + 1.0).ln() / TRAFFIC_MAX.ln();
    share.min(1.0)
}

fn width(share: f64) -> f64 {
    WIDTH_MIN + share * (WIDTH_MAX - WIDTH_MIN)
}

fn dot(svg: &mut String, (x, y): (f64, f64), radius: f64, member: &Member) {
    if member.founder || member.admin {
        let radius = radius + 3.5;
        let _ = write!(
            svg,
            "<circle class=\"super\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>"
        );
    }
    let class = match member.path.as_str() {
        "self" => "itself",
        "-" => "found",
        _ => "near",
    };
    let _ = write!(
        svg,
        "<circle class=\"node {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{}\
         </title></circle>",
        escaped(&member.node_id)
    );
}

/// Names a member beside its dot: its host, its address and its role.
fn name(svg: &mut String, place: &Place<'_>) {
    let (x, y) = place.at(1.0);
    let side = (place.turn * TAU).sin();
    let (anchor, away) = match side {
        side if side > 0.2 => ("start", 16.0),
        side if side < -0.2 => ("end", -16.0),
        _ => ("middle", 0.0),
    };
    let below = if (place.turn * TAU).cos() > 0.0 {
        -26.0
    } else {
        24.0
    };
    let y = if away == 0.0 { y + below } else { y - 2.0 };
    let member = place.member;
    let address = member.addresses.first().map(ToString::to_string);
    let role = member.role.as_ref().map(|role| format!(" ({role})"));
    let about = address.unwrap_or_default() + &role.unwrap_or_default();
    for (line, class, content) in [
        (0.0, "strong", shortened(&member.host)),
        (14.0, "small", about),
    ] {
        let _ = write!(
            svg,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            x + away,
            y + line,
            escaped(&content)
        );
    }
}

fn shortened(host: &str) -> String {
    match host.char_indices().nth(NAME_CHARACTERS) {
        Some((end, _)) => format!("{}\u{2026}", &host[..end]),
        None => host.to_owned(),
    }
}

fn legend(svg: &mut String, language: Language) {
    let y = HEIGHT - 62.0;
    let lines = [
        ("line t0", Label::Direct),
        ("line t0 session", Label::InSession),
    ];
    for (column, (class, label)) in (0..).zip(lines) {
        let x = 24.0 + f64::from(column) * 186.0;
        let _ = write!(svg, "<path class=\"{class}\" d=\"M{x} {y}h28\"/>");
        text(svg, (x + 36.0, y + 4.0), "", language.label(label));
    }
    let dots = [
        ("found", Label::NotInTouch),
        ("super", Label::Administrator),
    ];
    for (column, (class, label)) in (2..).zip(dots) {
        let x = 32.0 + f64::from(column) * 186.0;
        let class = if class == "super" {
            class.to_owned()
        } else {
            format!("node {class}")
        };
        let _ = write!(
            svg,
            "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"7\"/>"
        );
        text(svg, (x + 14.0, y + 4.0), "", language.label(label));
    }
    round_trips(svg, y + 24.0, language);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u64, path: &str) -> Member {
        Member {
            node_id: format!("node{number:04}"),
            host: format!("host{number}"),
            addresses: vec!["10.77.0.2".parse().unwrap()],
            path: path.to_owned(),
            rtt_ms: (path != "-").then_some(number as f64),
            bytes_sent: 1 << number.min(50),
            ..Member::default()
        }
    }

    fn channel(others: u64) -> Channel {
        let paths = ["direct 192.0.2.1:1", "session direct 192.0.2.1:1", "-"];
        let others = (1..=others).map(|number| member(number, paths[number as usize % 3]));
        Channel {
            name: "office".to_owned(),
            network: "10.77.0.0/16".to_owned(),
            member_list: [member(0, "self")].into_iter().chain(others).collect(),
            ..Channel::default()
        }
    }

    fn count(svg: &str, part: &str) -> usize {
        svg.matches(part).count()
    }

    #[test]
    fn members_in_touch_have_lines_and_all_have_names() {
        let svg = draw(&channel(6), Language::En);
        assert_eq!(count(&svg, "</title></circle>"), 7);
        assert_eq!(count(&svg, "</title></path>"), 4);
        assert_eq!(count(&svg, " session\" style"), 2);
        for host in 0..=6 {
            assert!(svg.contains(&format!(">host{host}</text>")), "{host}");
        }
        assert!(svg.ends_with("</svg>\n") && svg.contains("10.77.0.2"));
        assert_eq!(
            count(&draw(&channel(0), Language::Ja), "</title></circle>"),
            1
        );
    }

    #[test]
    fn the_busiest_are_drawn_where_there_are_too_many() {
        let svg = draw(&channel(100), Language::En);
        assert_eq!(count(&svg, "</title></circle>"), MEMBERS_MAX + 1);
        assert!(svg.contains("52 more are not drawn"));
        assert_eq!(
            count(&svg, "</title></path>"),
            MEMBERS_MAX,
            "all are in touch"
        );
    }

    #[test]
    fn lines_grow_with_traffic_within_bounds() {
        let [little, much] = [member(1, "x"), member(50, "x")].map(|m| width(traffic_share(&m)));
        assert!(WIDTH_MIN < little && little < much && much <= WIDTH_MAX);
    }

    #[test]
    fn what_others_write_stays_text() {
        let mut channel = channel(1);
        channel.member_list[1].host = "</text><script>\u{1b}".to_owned();
        let svg = draw(&channel, Language::Ja);
        assert!(!svg.contains("<script>") && !svg.contains('\u{1b}'));
    }
}
