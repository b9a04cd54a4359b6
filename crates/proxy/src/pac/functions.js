// The functions of PAC files, after MDN, "Proxy Auto-Configuration (PAC) file", "Predefined functions and
// environment". Called with what the program gives, and with the time in milliseconds since 1970.
(function (resolve, addresses, inNetwork, inPrefix, matches, now) {
  "use strict";
  const days = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
  const months = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
  const isV4 = (text) => /^\d{1,3}(\.\d{1,3}){3}$/.test(text);

  // The values of a call and the time to compare with: GMT if the last one is "GMT", else local.
  const asked = (values) => {
    values = Array.from(values);
    const gmt = values[values.length - 1] === "GMT";
    if (gmt) values.pop();
    const date = new Date(now);
    const at = gmt
      ? { year: date.getUTCFullYear(), month: date.getUTCMonth(), day: date.getUTCDate(),
          weekday: date.getUTCDay(), hour: date.getUTCHours(), minute: date.getUTCMinutes(),
          second: date.getUTCSeconds() }
      : { year: date.getFullYear(), month: date.getMonth(), day: date.getDate(),
          weekday: date.getDay(), hour: date.getHours(), minute: date.getMinutes(),
          second: date.getSeconds() };
    return [values, at];
  };
  // Whether a value lies between two others; past the end it goes on at the beginning.
  const between = (from, value, to) =>
    from <= to ? from <= value && value <= to : from <= value || value <= to;

  const functions = {
    isPlainHostName: (host) => !String(host).includes(".") && !String(host).includes(":"),
    dnsDomainIs: (host, domain) => String(host).toLowerCase().endsWith(String(domain).toLowerCase()),
    localHostOrDomainIs: (host, whole) => {
      host = String(host).toLowerCase();
      whole = String(whole).toLowerCase();
      return host === whole || (!host.includes(".") && whole.startsWith(host + "."));
    },
    isResolvable: (host) => functions.dnsResolve(host) !== null,
    isResolvableEx: (host) => resolve(String(host)).length > 0,
    dnsResolve: (host) => {
      host = String(host);
      if (isV4(host)) return host;
      const found = resolve(host).find(isV4);
      return found === undefined ? null : found;
    },
    dnsResolveEx: (host) => resolve(String(host)).join(";"),
    myIpAddress: () => {
      const found = addresses.find(isV4);
      return found === undefined ? "127.0.0.1" : found;
    },
    myIpAddressEx: () => addresses.join(";"),
    isInNet: (host, network, mask) => {
      const address = functions.dnsResolve(host);
      return address !== null && inNetwork(address, String(network), String(mask));
    },
    isInNetEx: (address, prefix) => inPrefix(String(address), String(prefix)),
    dnsDomainLevels: (host) => String(host).split(".").length - 1,
    shExpMatch: (text, pattern) => matches(String(pattern), String(text)),
    convert_addr: (address) =>
      isV4(String(address))
        ? String(address).split(".").reduce((sum, octet) => ((sum << 8) | (octet & 255)) >>> 0, 0)
        : 0,
    alert: () => undefined,

    // weekdayRange(day [, day] [, "GMT"])
    weekdayRange: (...values) => {
      const [named, at] = asked(values);
      const numbers = named.map((name) => days.indexOf(String(name).toUpperCase()));
      if (numbers.length < 1 || numbers.length > 2 || numbers.includes(-1)) return false;
      return between(numbers[0], at.weekday, numbers[numbers.length - 1]);
    },
    // dateRange of day, month, year: one of each kind is that date; else the first half to the second.
    dateRange: (...values) => {
      const [named, at] = asked(values);
      const kinds = [];
      const numbers = [];
      for (const name of named) {
        const month = months.indexOf(String(name).toUpperCase());
        const number = month >= 0 ? month : Number(name);
        if (!Number.isInteger(number) || number < 0) return false;
        kinds.push(month >= 0 ? "month" : number > 31 ? "year" : "day");
        numbers.push(number);
      }
      const weights = { year: 10000, month: 100, day: 1 };
      const sum = (kinds, number) =>
        kinds.reduce((sum, kind, at) => sum + weights[kind] * number(kind, at), 0);
      if (new Set(kinds).size === kinds.length) {
        return kinds.length > 0 && kinds.every((kind, index) => at[kind] === numbers[index]);
      }
      const half = kinds.length / 2;
      const first = kinds.slice(0, half);
      if (!Number.isInteger(half) || new Set(first).size !== half ||
          first.join() !== kinds.slice(half).join()) return false;
      const from = sum(first, (_, index) => numbers[index]);
      const to = sum(first, (_, index) => numbers[half + index]);
      const value = sum(first, (kind) => at[kind]);
      return first.includes("year") ? from <= value && value <= to : between(from, value, to);
    },
    // timeRange(hour), or of hour [, minute [, second]] for both ends; whole hours and minutes count
    // to their ends.
    timeRange: (...values) => {
      const [named, at] = asked(values);
      const numbers = named.map(Number);
      if (!numbers.every((number) => Number.isInteger(number) && number >= 0)) return false;
      const time = (hour, minute, second) => (hour * 60 + minute) * 60 + second;
      const value = time(at.hour, at.minute, at.second);
      const [a, b, c, d, e, f] = numbers;
      switch (numbers.length) {
        case 1: return at.hour === a;
        case 2: return between(time(a, 0, 0), value, time(b, 59, 59));
        case 4: return between(time(a, b, 0), value, time(c, d, 59));
        case 6: return between(time(a, b, c), value, time(d, e, f));
        default: return false;
      }
    },
  };
  for (const name of Object.keys(functions)) globalThis[name] = functions[name];
  // Has the system read its time zone while it still may.
  new Date(now).getHours();
})
