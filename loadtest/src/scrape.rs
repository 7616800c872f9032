//! The gateway's metrics, as a scraper reads them: over HTTP, from the admin listener.

use std::{collections::BTreeMap, io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One answer of `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// Asks once.
    ///
    /// # Errors
    /// What the socket says; no answer with status 200.
    pub(crate) async fn scrape(admin: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if answer.starts_with("HTTP/1.1 200 ") {
            Ok(Self(answer))
        } else {
            Err(io::Error::other(answer.lines().next().unwrap_or("no answer").to_owned()))
        }
    }

    /// The sum over all series of `name` that carry these labels, each as `key="value"`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, carried) = series.split_once('{').unwrap_or((series, ""));
            let fits = found == name && labels.iter().all(|label| carried.contains(label));
            // Counts, written as whole numbers or as floats without a fraction.
            if fits { value.parse::<f64>().ok().map(|value| value as u64) } else { None }
        };
        self.0.lines().filter_map(value).sum()
    }

    /// The sums over all series of `name`, by the value of one label. Those that are zero are left out.
    pub(crate) fn by(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let opening = format!("{label}=\"");
        let values =
            self.0.lines().filter(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with('{')));
        let values = values.filter_map(|line| Some(line.split_once(&opening)?.1.split_once('"')?.0));
        let mut sums = BTreeMap::new();
        for value in values {
            let sum = self.sum(name, &[&format!("{opening}{value}\"")]);
            if sum > 0 {
                sums.insert(value.to_owned(), sum);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let metrics = Metrics(
            "# HELP a b\na{kind=\"full\",result=\"ok\"} 3\na{kind=\"full\",result=\"tls\"} 1\n\
             a{kind=\"resumed\",result=\"ok\"} 5\na_total{kind=\"full\"} 9\nb 7\n"
                .to_owned(),
        );
        assert_eq!(metrics.sum("a", &["kind=\"full\"", "result=\"ok\""]), 3);
        assert_eq!(metrics.sum("a", &["result=\"ok\""]), 8);
        assert_eq!(metrics.sum("b", &[]), 7);
        assert_eq!(metrics.sum("c", &[]), 0);
        assert_eq!(metrics.by("a", "result"), [("ok".to_owned(), 8), ("tls".to_owned(), 1)].into());
    }
}
