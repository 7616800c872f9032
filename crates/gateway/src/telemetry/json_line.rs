//! Writes one flat JSON object per line, field by field, straight into a byte buffer.
//!
//! A log line by way of a generic serialiser cost seven per cent of the CPU of a request: it looks at every byte of every
//! name and value, most of which are words and numbers of our own. Owns the form of JSON (RFC 8259); what is in a line is
//! its caller's.

use std::net::SocketAddr;

/// A field's name as it stands in the line, behind the comma.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(super) use name;

/// A line under construction. Names come from `name!`.
pub(super) struct JsonLine<'a> {
    out: &'a mut Vec<u8>,
    begin: usize,
}

impl<'a> JsonLine<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        let begin = out.len();
        Self { out, begin }
    }

    /// Ends the object and the line.
    pub(super) fn end(self) {
        match self.out.get_mut(self.begin) {
            // The comma before the first field.
            Some(first) => *first = b'{',
            None => self.out.push(b'{'),
        }
        self.out.extend_from_slice(b"}\n");
    }

    /// A word of our own: printable ASCII without quotes and backslashes.
    pub(super) fn word(&mut self, name: &'static str, word: &str) -> &mut Self {
        debug_assert!(!word.bytes().any(is_special), "{word:?} is no plain word");
        self.name(name).quoted(word.as_bytes())
    }

    /// Anybody's bytes; what is not UTF-8 becomes U+FFFD.
    pub(super) fn text(&mut self, name: &'static str, text: &[u8]) -> &mut Self {
        self.name(name);
        // All of it is looked at, without a branch for each byte: that is many bytes at a time.
        if text.iter().fold(false, |special, byte| special | is_special(*byte)) {
            self.escaped(text);
            return self;
        }
        self.quoted(text)
    }

    pub(super) fn number(&mut self, name: &'static str, number: u64) -> &mut Self {
        self.name(name).digits(number)
    }

    pub(super) fn flag(&mut self, name: &'static str, flag: bool) -> &mut Self {
        self.name(name).raw(if flag { b"true" } else { b"false" })
    }

    pub(super) fn null(&mut self, name: &'static str) -> &mut Self {
        self.name(name).raw(b"null")
    }

    /// An address and its port, as text.
    pub(super) fn address(&mut self, name: &'static str, address: SocketAddr) -> &mut Self {
        let SocketAddr::V4(v4) = address else {
            return self.word(name, &address.to_string());
        };
        self.name(name).raw(b"\"");
        let [a, b, c, d] = v4.ip().octets();
        for octet in [a, b, c] {
            self.digits(u64::from(octet)).raw(b".");
        }
        self.digits(u64::from(d)).raw(b":").digits(u64::from(v4.port())).raw(b"\"")
    }

    fn name(&mut self, name: &'static str) -> &mut Self {
        self.raw(name.as_bytes())
    }

    fn quoted(&mut self, plain: &[u8]) -> &mut Self {
        self.raw(b"\"").raw(plain).raw(b"\"")
    }

    fn digits(&mut self, number: u64) -> &mut Self {
        self.raw(itoa::Buffer::new().format(number).as_bytes())
    }

    fn escaped(&mut self, text: &[u8]) {
        let begin = self.out.len();
        // Writing a string to memory cannot fail; should it, an empty one stands in its place.
        if serde_json::to_writer(&mut *self.out, &String::from_utf8_lossy(text)).is_err() {
            self.out.truncate(begin);
            self.quoted(b"");
        }
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }
}

/// Whether a byte may not stand in a string as it is, or is part of something that must be looked at as a whole.
fn is_special(byte: u8) -> bool {
    !(b' '..0x7f).contains(&byte) | (byte == b'"') | (byte == b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_a_json_parser_makes_of_it() {
        let mut out = b"before\n".to_vec();
        let mut line = JsonLine::begin(&mut out);
        line.word(name!("a"), "one").text(name!("b"), b"q\"\\\n\xff\xc3\xa4").number(name!("c"), u64::MAX);
        line.flag(name!("d"), true).flag(name!("e"), false).null(name!("f"));
        line.address(name!("g"), ([127, 0, 0, 1], 65_535).into());
        line.address(name!("h"), "[2001:db8::1]:80".parse().unwrap());
        line.text(name!("i"), b"").text(name!("j"), "plain ~".as_bytes());
        line.end();
        let text = String::from_utf8(out).unwrap();
        let line = text.strip_prefix("before\n").unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(line).unwrap();
        let want = serde_json::json!({
            "a": "one", "b": "q\"\\\n\u{fffd}ä", "c": u64::MAX, "d": true, "e": false, "f": null,
            "g": "127.0.0.1:65535", "h": "[2001:db8::1]:80", "i": "", "j": "plain ~",
        });
        assert_eq!(read, want);
    }

    #[test]
    fn every_byte_survives_or_becomes_a_replacement() {
        for byte in 0..=u8::MAX {
            let mut out = Vec::new();
            let mut line = JsonLine::begin(&mut out);
            line.text(name!("x"), &[b'<', byte, b'>']);
            line.end();
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(read["x"], String::from_utf8_lossy(&[b'<', byte, b'>']).as_ref(), "{byte}");
        }
    }

    #[test]
    fn an_empty_line_is_an_empty_object() {
        let mut out = Vec::new();
        JsonLine::begin(&mut out).end();
        assert_eq!(out, b"{}\n");
    }
}
