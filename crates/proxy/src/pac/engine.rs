//! The evaluation of a PAC file by QuickJS, within limits. Runs in the guard ([`super::guard`]).

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use rquickjs::prelude::Func;
use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, Function, Runtime, Value};

use super::answer::ANSWER_BYTES_MAX;
use super::guard::Question;
use crate::bypass::Network;
use crate::glob;

/// The functions of PAC files.
const FUNCTIONS: &str = include_str!("functions.js");

/// What a PAC file may have in memory, in octets.
const MEMORY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The stack of a PAC file, in octets.
const STACK_BYTES_MAX: usize = 256 * 1024;

/// How long a PAC file may run.
const TIME_MAX: Duration = Duration::from_secs(4);

/// The longest error of a PAC file that is told, in characters.
const ERROR_CHARS_MAX: usize = 200;

/// The longest texts that are matched with a pattern, in octets.
const MATCHED_BYTES_MAX: usize = 16 * 1024;

/// Evaluates a PAC file. `isolate` is called when all is ready and nothing of the file has run;
/// `resolve` looks names up.
///
/// # Errors
/// What the file did, in words.
pub(super) fn evaluate(
    question: &Question,
    isolate: impl FnOnce(),
    resolve: impl Fn(String) -> Vec<String> + 'static,
) -> Result<String, String> {
    let strange = |error: rquickjs::Error| error.to_string();
    let runtime = Runtime::new().map_err(strange)?;
    runtime.set_memory_limit(MEMORY_BYTES_MAX);
    runtime.set_max_stack_size(STACK_BYTES_MAX);
    let context = Context::full(&runtime).map_err(strange)?;
    context.with(|cx| {
        let prepared = prepare(&cx, question, resolve).catch(&cx);
        prepared.map_err(|error| worded(&error))
    })?;
    isolate();
    let deadline = Instant::now() + TIME_MAX;
    runtime.set_interrupt_handler(Some(Box::new(move || Instant::now() >= deadline)));
    context.with(|cx| {
        let answer = ask(&cx, question).catch(&cx);
        answer.map_err(|error| match Instant::now() >= deadline {
            true => "it ran for too long".to_owned(),
            false => worded(&error),
        })
    })
}

/// Defines the functions.
fn prepare<'js>(
    cx: &Ctx<'js>,
    question: &Question,
    resolve: impl Fn(String) -> Vec<String> + 'static,
) -> rquickjs::Result<()> {
    let functions: Function<'js> = cx.eval(FUNCTIONS)?;
    let addresses: Vec<String> = question.addresses.iter().map(ToString::to_string).collect();
    let in_network = |address: String, network: String, mask: String| {
        is_in_network(&address, &network, &mask).unwrap_or(false)
    };
    let in_prefix = |address: String, prefix: String| {
        let address: Option<IpAddr> = address.parse().ok();
        let network = Network::parse(&prefix);
        address
            .zip(network)
            .is_some_and(|(address, network)| network.contains(address))
    };
    let matches = |pattern: String, text: String| {
        let is_short = |text: &str| text.len() <= MATCHED_BYTES_MAX;
        is_short(&pattern) && is_short(&text) && glob::matches(&pattern, &text)
    };
    functions.call((
        Func::from(resolve),
        addresses,
        Func::from(in_network),
        Func::from(in_prefix),
        Func::from(matches),
        question.now_ms,
    ))
}

/// Runs the file and asks it.
fn ask<'js>(cx: &Ctx<'js>, question: &Question) -> rquickjs::Result<String> {
    let mut options = rquickjs::context::EvalOptions::default();
    options.strict = false;
    let _: Value<'js> = cx.eval_with_options(question.script.as_str(), options)?;
    let globals = cx.globals();
    let name = match globals.contains_key("FindProxyForURL")? {
        true => "FindProxyForURL",
        false => "FindProxyForURLEx",
    };
    let find: Function<'js> = globals.get(name)?;
    let answer: Value<'js> = find.call((question.url.as_str(), question.host.as_str()))?;
    let Some(answer) = answer.as_string() else {
        return Ok(String::new());
    };
    let mut answer = answer.to_string()?;
    // One more than is read: the reader sees that it is too long.
    answer.truncate(answer.floor_char_boundary(ANSWER_BYTES_MAX + 1));
    Ok(answer)
}

fn is_in_network(address: &str, network: &str, mask: &str) -> Option<bool> {
    let bits = |text: &str| text.parse::<Ipv4Addr>().ok().map(Ipv4Addr::to_bits);
    let mask = bits(mask)?;
    Some(bits(address)? & mask == bits(network)? & mask)
}

/// Words what a file did, in printable characters.
fn worded(error: &CaughtError<'_>) -> String {
    let text = error.to_string();
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(ERROR_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sunday, 22 November 2026, 22:40:00 GMT.
    const NOW_MS: f64 = 1_795_387_200_000.0;

    fn run(script: &str, url: &str, host: &str) -> Result<String, String> {
        let question = Question {
            script: script.to_owned(),
            url: url.to_owned(),
            host: host.to_owned(),
            addresses: vec!["fd00::7".parse().unwrap(), "10.1.2.3".parse().unwrap()],
            now_ms: NOW_MS,
        };
        let resolve = |host: String| match host.as_str() {
            "intranet" => vec!["2001:db8::5".to_owned(), "10.0.0.5".to_owned()],
            _ => Vec::new(),
        };
        evaluate(&question, || (), resolve)
    }

    fn value(expression: &str) -> String {
        let script =
            format!("function FindProxyForURL(url, host) {{ return String({expression}); }}");
        run(&script, "http://www.example.com/", "www.example.com").unwrap()
    }

    #[test]
    fn functions_are_as_mdn_has_them() {
        for (expression, expected) in [
            ("isPlainHostName('www')", "true"),
            ("isPlainHostName('www.mozilla.org')", "false"),
            ("dnsDomainIs('www.mozilla.org', '.mozilla.org')", "true"),
            ("dnsDomainIs('www', '.mozilla.org')", "false"),
            (
                "localHostOrDomainIs('www.mozilla.org', 'www.mozilla.org')",
                "true",
            ),
            ("localHostOrDomainIs('www', 'www.mozilla.org')", "true"),
            (
                "localHostOrDomainIs('www.google.com', 'www.mozilla.org')",
                "false",
            ),
            (
                "localHostOrDomainIs('home.mozilla.org', 'www.mozilla.org')",
                "false",
            ),
            ("isResolvable('intranet')", "true"),
            ("isResolvable('nowhere')", "false"),
            (
                "isInNet('198.95.249.79', '198.95.249.79', '255.255.255.255')",
                "true",
            ),
            ("isInNet('198.95.6.8', '198.95.0.0', '255.255.0.0')", "true"),
            ("isInNet('intranet', '10.0.0.0', '255.0.0.0')", "true"),
            ("isInNet('nowhere', '0.0.0.0', '0.0.0.0')", "false"),
            ("isInNet('198.95.6.8', 'x', 'y')", "false"),
            ("isInNetEx('2001:db8::5', '2001:db8::/32')", "true"),
            ("dnsResolve('intranet')", "10.0.0.5"),
            ("dnsResolve('nowhere')", "null"),
            ("dnsResolve('1.2.3.4')", "1.2.3.4"),
            ("dnsResolveEx('intranet')", "2001:db8::5;10.0.0.5"),
            ("isResolvableEx('intranet')", "true"),
            ("myIpAddress()", "10.1.2.3"),
            ("myIpAddressEx()", "fd00::7;10.1.2.3"),
            ("dnsDomainLevels('www')", "0"),
            ("dnsDomainLevels('www.mozilla.org')", "2"),
            ("convert_addr('104.16.41.2')", "1745889538"),
            ("convert_addr('255.255.255.255')", "4294967295"),
            (
                "shExpMatch('http://home.example.com/people/ari/index.html', '*/ari/*')",
                "true",
            ),
            (
                "shExpMatch('http://home.example.com/people/yumi/index.html', '*/ari/*')",
                "false",
            ),
            ("alert('x')", "undefined"),
        ] {
            assert_eq!(value(expression), expected, "{expression}");
        }
    }

    #[test]
    fn ranges_of_days_dates_and_times() {
        for (expression, expected) in [
            ("weekdayRange('SUN', 'GMT')", true),
            ("weekdayRange('MON', 'FRI', 'GMT')", false),
            ("weekdayRange('FRI', 'MON', 'GMT')", true),
            ("weekdayRange('FRI', 'GMT')", false),
            ("weekdayRange('XYZ')", false),
            ("weekdayRange()", false),
            ("dateRange(22, 'GMT')", true),
            ("dateRange(23, 'GMT')", false),
            ("dateRange(1, 15, 'GMT')", false),
            ("dateRange(20, 5, 'GMT')", true),
            ("dateRange('NOV', 'GMT')", true),
            ("dateRange('OCT', 'FEB', 'GMT')", true),
            ("dateRange('JAN', 'MAR', 'GMT')", false),
            ("dateRange(2026, 'GMT')", true),
            ("dateRange(2020, 2025, 'GMT')", false),
            ("dateRange(22, 'NOV', 'GMT')", true),
            ("dateRange(1, 'JUN', 15, 'AUG', 'GMT')", false),
            ("dateRange(1, 'DEC', 15, 'NOV', 'GMT')", false),
            ("dateRange(1, 'DEC', 30, 'NOV', 'GMT')", true),
            ("dateRange(1, 'JUN', 1995, 15, 'AUG', 2030, 'GMT')", true),
            ("dateRange('OCT', 1995, 'MAR', 1996, 'GMT')", false),
            ("dateRange(22, 'NOV', 2026, 'GMT')", true),
            ("dateRange(1, 'JUN', 3, 'GMT')", false),
            ("dateRange()", false),
            ("timeRange(22, 'GMT')", true),
            ("timeRange(12, 13, 'GMT')", false),
            ("timeRange(21, 22, 'GMT')", true),
            ("timeRange(22, 39, 22, 40, 'GMT')", true),
            ("timeRange(22, 41, 22, 39, 'GMT')", false),
            ("timeRange(20, 0, 6, 0, 'GMT')", true),
            ("timeRange(22, 40, 0, 22, 40, 0, 'GMT')", true),
            ("timeRange(22, 40, 1, 22, 50, 0, 'GMT')", false),
            ("timeRange(1, 2, 3)", false),
        ] {
            assert_eq!(value(expression), expected.to_string(), "{expression}");
        }
    }

    #[test]
    fn a_file_is_asked_by_its_function() {
        let script = "function FindProxyForURL(url, host) { return url + ' ' + host; }";
        assert_eq!(run(script, "https://a/", "a").unwrap(), "https://a/ a");
        let ex = "function FindProxyForURLEx(url, host) { return 'PROXY ex:1'; }";
        assert_eq!(run(ex, "https://a/", "a").unwrap(), "PROXY ex:1");
        for nothing in ["null", "undefined", "42", "{}"] {
            let script = format!("function FindProxyForURL() {{ return {nothing}; }}");
            assert_eq!(run(&script, "https://a/", "a").unwrap(), "");
        }
        assert!(run("", "https://a/", "a").is_err());
        assert!(run("function (", "https://a/", "a").is_err());
    }

    #[test]
    fn a_url_cannot_break_out_of_its_text() {
        let script =
            "var broken = false; function FindProxyForURL(url) { return String(broken) + url; }";
        let url = "http://a/\"); broken = true; (\"";
        assert_eq!(run(script, url, "a").unwrap(), format!("false{url}"));
    }

    #[test]
    fn a_file_finds_nothing_of_the_system() {
        let names = "typeof require + typeof std + typeof os + typeof process + typeof fetch";
        assert_eq!(value(names), "undefined".repeat(5));
    }

    #[test]
    fn recursion_memory_and_length_are_bounded() {
        let recursion = "function FindProxyForURL(u, h) { return FindProxyForURL(u, h) + 'x'; }";
        assert!(run(recursion, "https://a/", "a").is_err());
        let memory = "function FindProxyForURL() { var a = []; for (;;) a.push('x'.repeat(1e6) + a.length); }";
        assert!(run(memory, "https://a/", "a").is_err());
        let long = "function FindProxyForURL() { return 'PROXY a:1;'.repeat(1e6); }";
        assert!(run(long, "https://a/", "a").unwrap().len() <= ANSWER_BYTES_MAX + 1);
        let error = "function FindProxyForURL() { throw new Error('\\n'.repeat(1e6)); }";
        let error = run(error, "https://a/", "a").unwrap_err();
        assert!(error.len() <= 4 * ERROR_CHARS_MAX && !error.contains('\n'));
    }

    #[test]
    fn an_endless_loop_ends() {
        let script = "function FindProxyForURL() { for (;;) {} }";
        let error = run(script, "https://a/", "a").unwrap_err();
        assert!(error.contains("too long"), "{error}");
    }
}
