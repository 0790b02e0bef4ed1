//! A certificate's subject as a line of text (RFC 4514), for logs and for servers: bounded, and escaped so that no value can pass for two.

use std::fmt::Write as _;

use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The longest subject that is told, in bytes; of a longer one its beginning and [`CUT`].
pub const SUBJECT_MAX: usize = 256;

/// What a subject ends with that was too long.
pub const CUT: &str = "...";

/// The longest common name that is told, as RFC 5280 A.1 bounds it (ub-common-name), in bytes.
pub const COMMON_NAME_MAX: usize = 64;

/// The subject, its most specific part first, as RFC 4514 2.1 has it.
pub(super) fn line_of(name: &X509Name<'_>) -> Box<str> {
    let mut line = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        for (at, attribute) in part.iter().enumerate() {
            match (at, line.is_empty()) {
                (_, true) => {}
                (0, false) => line.push(','),
                (_, false) => line.push('+'),
            }
            write_attribute(&mut line, attribute);
            if line.len() > SUBJECT_MAX {
                let end = SUBJECT_MAX - CUT.len();
                let end = (0..=end).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
                line.truncate(end);
                line.push_str(CUT);
                return line.into();
            }
        }
    }
    line.into()
}

/// The most specific common name, if there is one that is text and not longer than [`COMMON_NAME_MAX`].
pub(super) fn common_name_of(name: &X509Name<'_>) -> Option<Box<str>> {
    let last = name.iter_common_name().last()?;
    last.as_str().ok().filter(|text| text.len() <= COMMON_NAME_MAX).map(Box::from)
}

fn write_attribute(line: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    match oid2abbrev(attribute.attr_type(), oid_registry()) {
        Ok(short) => line.push_str(short),
        Err(_) => line.push_str(&attribute.attr_type().to_id_string()),
    }
    line.push('=');
    match attribute.as_str() {
        Ok(text) => write_escaped(line, text),
        // RFC 4514 2.4: what is no text is shown by its bytes.
        Err(_) => {
            line.push('#');
            for byte in attribute.as_slice().iter().take(SUBJECT_MAX) {
                // Writing to a string does not fail.
                let _ = write!(line, "{byte:02x}");
            }
        }
    }
}

/// RFC 4514 2.4, and control characters likewise. Of a long value no more than can be shown is looked at.
fn write_escaped(line: &mut String, text: &str) {
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate().take(SUBJECT_MAX + 1) {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => line.extend(['\\', c]),
            '#' if at == 0 => line.extend(['\\', c]),
            ' ' if at == 0 || at == last => line.extend(['\\', c]),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(line, "\\{byte:02X}");
                }
            }
            c => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    fn told(parts: &[(DnType, &str)]) -> (String, Option<String>) {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&key).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
        (line_of(parsed.subject()).into(), common_name_of(parsed.subject()).map(String::from))
    }

    #[test]
    fn the_most_specific_part_comes_first() {
        let parts = [(DnType::CountryName, "CH"), (DnType::OrganizationName, "Shop"), (DnType::CommonName, "alice")];
        assert_eq!(told(&parts), ("CN=alice,O=Shop,C=CH".into(), Some("alice".into())));
        assert_eq!(told(&[]), (String::new(), None));
    }

    #[test]
    fn no_value_passes_for_another_part_or_another_line() {
        let value = " a,O=Admins+x\\y\n\"z\"\u{0} ";
        let expected = "CN=\\ a\\,O\\=Admins\\+x\\\\y\\0A\\\"z\\\"\\00\\ ";
        assert_eq!(told(&[(DnType::CommonName, value)]).0, expected);
        assert_eq!(told(&[(DnType::CommonName, "#1")]).0, "CN=\\#1");
    }

    #[test]
    fn an_unknown_kind_of_part_is_told_by_its_number() {
        let kind = DnType::CustomDnType(vec![1, 2, 3, 4]);
        assert_eq!(told(&[(kind, "x")]).0, "1.2.3.4=x");
    }

    #[test]
    fn a_subject_is_told_up_to_its_bound() {
        let line = |len: usize| told(&[(DnType::CommonName, &"x".repeat(len))]);
        let most = SUBJECT_MAX - "CN=".len();
        assert_eq!(line(most).0, format!("CN={}", "x".repeat(most)));
        let cut = line(most + 1).0;
        assert_eq!((cut.len(), cut.ends_with(CUT)), (SUBJECT_MAX, true));
        assert_eq!(line(COMMON_NAME_MAX).1, Some("x".repeat(COMMON_NAME_MAX)));
        assert_eq!(line(COMMON_NAME_MAX + 1).1, None);
    }

    proptest! {
        #[test]
        fn whatever_a_subject_says_is_one_line_within_the_bound(name in "\\PC{0,300}", unit in ".{0,300}") {
            let (line, _) = told(&[(DnType::OrganizationalUnitName, &unit), (DnType::CommonName, &name)]);
            prop_assert!(line.len() <= SUBJECT_MAX && !line.contains(char::is_control));
        }
    }
}
