//! Words and numbers for people: the introduction, counts, times, shares.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use super::{
    args::DemoArgs,
    lab::{GOAWAY_EVERY, LATENCY, LATENCY_JITTER},
};

/// What runs, where, and what to paste to take part.
pub(super) fn introduction(args: &DemoArgs, egress: SocketAddr, admin: SocketAddr) -> String {
    let (least, most) = (LATENCY.as_millis(), (LATENCY + LATENCY_JITTER).as_millis());
    let end = match args.run_for {
        Some(time) => format!("It ends by itself after {}; Ctrl-C ends it sooner.", length(time)),
        None => "Ctrl-C ends it.".to_owned(),
    };
    format!(
        "TSH Gateway demo: {} requests/s over HTTP/1.1 and h2c to two simulated\n\
         providers that answer after {least} to {most} ms. The sandbox's ends every connection\n\
         with its {GOAWAY_EVERY}th request, which it does not answer.\n\
         {end}\n\
         \n\
         egress  http://{egress}  (HTTP/1.1, h2c, gRPC)\n\
         admin   http://{admin}  (/metrics, /readyz, /api/v1/pools)\n\
         try     curl -i http://{egress}/sandbox/payments -d '{{\"amount\": 1}}'\n\
         \x20       grpcurl -plaintext -d '{{\"environment\":\"sandbox\",\"path\":\"/payments\"}}' {egress} tsh.gateway.v1.Egress/Send\n\
         \n",
        args.rate,
    )
}

/// `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `850 us`, `1.2 ms`, `12 ms`, `1.5 s`.
pub(super) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..9_950 => format!("{:.1} ms", us as f64 / 1e3),
        9_950..999_500 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// `99.87 %`, never rounded up to a whole that it is not.
pub(super) fn share(ratio: f64) -> String {
    // The summand is for what binary fractions lack of a decimal one.
    format!("{:.2} %", (ratio * 1e4 + 1e-6).floor() / 1e2)
}

/// `0:07`.
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// `1 request`, `2 requests`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let mut text = count(number);
    // Writing to a string does not fail.
    let _ = write!(text, " {noun}{}", if number == 1 { "" } else { "s" });
    text
}

/// `500 ms`, `10 s`.
pub(super) fn length(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 {
        format!("{} ms", time.as_millis())
    } else if time.subsec_millis() < 50 {
        format!("{} s", time.as_secs())
    } else {
        format!("{seconds:.1} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_introduction_fits_a_narrow_terminal_but_for_what_is_pasted() {
        use clap::Parser as _;
        let cli = crate::cli::Cli::parse_from(["tsh-gateway", "demo", "--for=1h", "--rate=20000"]);
        let crate::cli::Command::Demo(args) = cli.command else { panic!("another command") };
        let address = SocketAddr::from(([127, 0, 0, 1], 65_535));
        let text = introduction(&args, address, address);
        for line in text.lines().filter(|line| !line.contains("grpcurl")) {
            assert!(line.len() < 80, "{line}");
        }
    }

    #[test]
    fn counts_have_separators() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!((counted(1, "request"), counted(2, "request")), ("1 request".into(), "2 requests".into()));
    }

    #[test]
    fn times_keep_two_digits() {
        for (us, text) in
            [(0, "0 us"), (999, "999 us"), (1_000, "1.0 ms"), (9_949, "9.9 ms"), (9_950, "10 ms")]
        {
            assert_eq!(micros(us), text);
        }
        assert_eq!((micros(999_499), micros(1_500_000)), ("999 ms".into(), "1.5 s".into()));
    }

    #[test]
    fn a_share_is_not_rounded_up_to_all() {
        assert_eq!(
            (share(0.99999), share(1.0), share(0.0)),
            ("99.99 %".into(), "100.00 %".into(), "0.00 %".into())
        );
    }

    #[test]
    fn lengths_and_clocks() {
        assert_eq!(length(Duration::from_millis(500)), "500 ms");
        assert_eq!(length(Duration::from_millis(10_020)), "10 s");
        assert_eq!(length(Duration::from_millis(2_500)), "2.5 s");
        assert_eq!(clock(Duration::from_secs(67)), "1:07");
    }
}
