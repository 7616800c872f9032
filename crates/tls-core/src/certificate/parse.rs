//! From DER to [`CertificateInfo`].
//!
//! x509-parser reads the structure; what it leaves to its caller is done here: names in odd encodings and
//! the check that a certificate really signed itself.

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use time::OffsetDateTime;
use webpki::ALL_VERIFICATION_ALGS;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::GeneralName;
use x509_parser::nom::Parser as _;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509CertificateParser};
use x509_parser::x509::{AlgorithmIdentifier, AttributeTypeAndValue};

use super::{CertificateInfo, ExtendedKeyUsage, Fingerprint, KeyKind, SignatureKind, hex};
use crate::pin::SpkiPin;

/// Decodes one certificate; the error says what is wrong.
pub(super) fn parse(der: &CertificateDer<'_>) -> Result<CertificateInfo, String> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| "it is not an X.509 certificate in DER".to_owned())?;
    if !rest.is_empty() {
        return Err(format!("{} bytes follow the certificate", rest.len()));
    }
    let malformed = |what: &'static str| move |_| format!("its {what} cannot be decoded");
    let basic_constraints = certificate.basic_constraints().map_err(malformed("basic constraints"))?;
    let usage = certificate.extended_key_usage().map_err(malformed("extended key usage"))?;
    Ok(CertificateInfo {
        subject: certificate.subject().to_string(),
        common_names: certificate.subject().iter_common_name().map(decode).collect(),
        issuer: certificate.issuer().to_string(),
        serial: hex(certificate.raw_serial()),
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
        key: KeyKind::of(certificate.public_key()),
        signature: SignatureKind::of(&certificate.signature_algorithm),
        is_ca: basic_constraints.map(|extension| extension.value.ca),
        extended_key_usage: usage.map(|extension| ExtendedKeyUsage {
            any: extension.value.any,
            server_auth: extension.value.server_auth,
            client_auth: extension.value.client_auth,
        }),
        self_signed: is_self_signed(&certificate),
        dns_names: dns_names(&certificate)?,
        fingerprint: Fingerprint::of(der),
        spki: SpkiPin::of_spki(certificate.public_key().raw),
        raw_subject: certificate.subject().as_raw().to_vec(),
        raw_issuer: certificate.issuer().as_raw().to_vec(),
    })
}

/// The end of a certificate's validity, without a look at its extensions: webpki has judged those, and an
/// odd one that only this reader dislikes is no reason to refuse a server.
pub(crate) fn not_after(der: &CertificateDer<'_>) -> Option<OffsetDateTime> {
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    let (_, certificate) = parser.parse(der).ok()?;
    Some(certificate.validity().not_after.to_datetime())
}

fn dns_names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| "its subject alternative name cannot be decoded".to_owned())?;
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    Ok(dns.collect())
}

/// An attribute's text, whatever string type it was written in. What cannot be decoded becomes `#` and hex,
/// as in RFC 4514: it matches no declared name, and is no reason to refuse a server's CA.
fn decode(attribute: &AttributeTypeAndValue<'_>) -> String {
    let bytes = attribute.as_slice();
    let text = match attribute.attr_value().tag() {
        Tag::BmpString => from_utf16_be(bytes),
        Tag::UniversalString => from_utf32_be(bytes),
        // T61 is read as Latin-1, as OpenSSL does.
        Tag::TeletexString => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        _ => attribute.as_str().ok().map(str::to_owned),
    };
    text.unwrap_or_else(|| format!("#{}", hex(bytes)))
}

fn from_utf16_be(bytes: &[u8]) -> Option<String> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
    odd.is_empty().then(|| char::decode_utf16(units).collect::<Result<_, _>>().ok())?
}

fn from_utf32_be(bytes: &[u8]) -> Option<String> {
    let (quads, odd) = bytes.as_chunks::<4>();
    let mut text = quads.iter().map(|quad| char::from_u32(u32::from_be_bytes(*quad)));
    odd.is_empty().then(|| text.by_ref().collect::<Option<_>>())?
}

/// Names alone can lie, so the signature is checked too. Where the algorithm is too old or too odd to be
/// checked (SHA-1, RSA below 2048), the names have to do: the linter refuses such a certificate anyway.
fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    if certificate.subject().as_raw() != certificate.issuer().as_raw() {
        return false;
    }
    let candidates = candidates(certificate);
    if candidates.is_empty() {
        return true;
    }
    let public_key = certificate.public_key().subject_public_key.data.as_ref();
    let message = certificate.tbs_certificate.as_ref();
    let signature = certificate.signature_value.data.as_ref();
    candidates.iter().any(|algorithm| algorithm.verify_signature(public_key, message, signature).is_ok())
}

/// The verification algorithms that fit the certificate's own key and its signature.
fn candidates(certificate: &X509Certificate<'_>) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
    if matches!(KeyKind::of(certificate.public_key()), KeyKind::Rsa { bits } if !(2048..=8192).contains(&bits))
    {
        return Vec::new();
    }
    let key = identifier(&certificate.public_key().algorithm);
    let signature = identifier(&certificate.signature_algorithm);
    let fits = |algorithm: &&&'static dyn SignatureVerificationAlgorithm| {
        algorithm.public_key_alg_id().as_ref() == key && algorithm.signature_alg_id().as_ref() == signature
    };
    ALL_VERIFICATION_ALGS.iter().filter(fits).copied().collect()
}

/// The content of an `AlgorithmIdentifier` in DER, without the outer SEQUENCE, as pki-types writes it.
fn identifier(algorithm: &AlgorithmIdentifier<'_>) -> Vec<u8> {
    let oid = algorithm.algorithm.as_bytes();
    let mut der = vec![0x06, u8::try_from(oid.len()).unwrap_or(u8::MAX)];
    der.extend_from_slice(oid);
    if let Some(parameters) = &algorithm.parameters {
        der.extend_from_slice(&parameter_der(parameters));
    }
    der
}

fn parameter_der(parameters: &x509_parser::asn1_rs::Any<'_>) -> Vec<u8> {
    use x509_parser::asn1_rs::ToDer as _;
    // Only compared with known identifiers: one that cannot be written again matches none.
    parameters.to_der_vec().unwrap_or_default()
}
