//! Single tokens as text and as bytes.

use chameleon_models::Tokenizer;

/// A single token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenText {
    /// Its text; a partial character is U+FFFD.
    pub(crate) text: String,
    /// Its bytes, if they are known.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// Spells a token as it reads inside a text.
pub(crate) fn spell(tokenizer: &Tokenizer, token_id: u32) -> TokenText {
    let decode = |ids: &[u32]| {
        tokenizer
            .decode_with_special_tokens(ids)
            .unwrap_or_default()
    };
    // Some tokenizers strip a space at the start of a text, so the token is decoded behind itself.
    let alone = decode(&[token_id]);
    let twice = decode(&[token_id, token_id]);
    let text = twice.strip_prefix(&alone).unwrap_or(&alone).to_owned();
    let bytes = if text.contains(char::REPLACEMENT_CHARACTER) {
        let in_vocabulary = tokenizer.token(token_id);
        in_vocabulary.and_then(|token| raw_bytes(&token))
    } else {
        Some(text.clone().into_bytes())
    };
    TokenText { text, bytes }
}

impl TokenText {
    /// The text, or, if it does not hold all bytes, the bytes as OpenAI writes them.
    pub(crate) fn label(&self) -> String {
        match &self.bytes {
            Some(bytes) if bytes.as_slice() != self.text.as_bytes() => {
                use std::fmt::Write as _;
                bytes.iter().fold("bytes:".to_owned(), |mut label, byte| {
                    write!(label, "\\x{byte:02x}").expect("a string accepts all text");
                    label
                })
            }
            _ => self.text.clone(),
        }
    }
}

/// The bytes of a vocabulary entry: `<0xE2>`, or the printable alphabet of byte-level tokenizers.
fn raw_bytes(token: &str) -> Option<Vec<u8>> {
    if let Some(digits) = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
    {
        return u8::from_str_radix(digits, 16).ok().map(|byte| vec![byte]);
    }
    token.chars().map(byte_of).collect()
}

/// Byte-level tokenizers write printable Latin-1 bytes as themselves and number the others from U+0100.
fn byte_of(character: char) -> Option<u8> {
    let is_itself = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match u32::from(character) {
        code @ 0..=255 => u8::try_from(code).ok().filter(|&byte| is_itself(byte)),
        code => {
            let number = usize::try_from(code - 256).ok()?;
            (0..=255).filter(|&byte| !is_itself(byte)).nth(number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_both_spellings() {
        assert_eq!(raw_bytes("<0xE2>"), Some(vec![0xe2]));
        assert_eq!(raw_bytes("Ġa"), Some(vec![b' ', b'a']));
        assert_eq!(raw_bytes("âĢ"), Some(vec![0xe2, 0x80]));
        assert_eq!(raw_bytes("日"), None);
    }

    #[test]
    fn half_characters_are_written_as_bytes() {
        let token = TokenText {
            text: "\u{fffd}".to_owned(),
            bytes: Some(vec![0xe2, 0x80]),
        };
        assert_eq!(token.label(), "bytes:\\xe2\\x80");
    }
}
