//! The flags of `demo` and the forms of their values.

use std::{path::PathBuf, time::Duration};

/// Traffic through a real gateway to two simulated providers, with a live table of what happens.
///
/// Exit code 0: every request was answered; 1: one was lost, or something could not start.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tsh-gateway demo\n  tsh-gateway demo --for 10s\n  tsh-gateway demo --for 30s --rate 1000 --json | jq .environments"
)]
pub struct DemoArgs {
    /// End by itself after this time: 500ms, 10s, 2m, 1h. Without it: at Ctrl-C.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub run_for: Option<Duration>,
    /// Requests per second, to both environments together.
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(4..=20_000))]
    pub rate: u32,
    /// Port of the egress listener on 127.0.0.1; 0 takes a free one. Default: 8080, or a free one if it is taken.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Port of the admin listener on 127.0.0.1; 0 takes a free one. Default: 9901, or a free one if it is taken.
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Write the gateway's access log to this file. Default: none is written.
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// One line per second instead of the table, also on a terminal.
    #[arg(long)]
    pub plain: bool,
    /// Only the summary, as one JSON object; ports and examples go to standard error.
    #[arg(long, conflicts_with = "plain")]
    pub json: bool,
}

/// Shortest run: below it there is nothing to see.
const SHORTEST: Duration = Duration::from_millis(100);
/// Longest run with an end.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

fn time(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("take a whole number and ms, s, m or h, as in 10s".to_owned()),
    };
    let time = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| "take a whole number and ms, s, m or h, as in 10s".to_owned())?;
    if (SHORTEST..=LONGEST).contains(&time) { Ok(time) } else { Err("take 100ms to 24h".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_range() {
        assert_eq!(time("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(time("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(time("24h"), Ok(LONGEST));
        for wrong in ["10", "s", "", "1.5s", "-1s", "10 s", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(time(wrong).unwrap_err().contains("10s"), "{wrong}");
        }
        for beyond in ["99ms", "0s", "25h"] {
            assert!(time(beyond).unwrap_err().contains("24h"), "{beyond}");
        }
    }
}
