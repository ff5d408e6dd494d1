//! Texts in the files of pictures: chunks of PNG, and EXIF of JPEG and WebP.

/// The number of texts of ASCII in EXIF.
const ASCII: u16 = 2;
/// Where in EXIF the texts are.
const SOFTWARE: u16 = 0x0131;
const MAKER_NOTE: u16 = 0x927C;
const USER_COMMENT: u16 = 0x9286;

/// What a file says of how its picture was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileText {
    /// Everything, in the notation of the scheme.
    pub(crate) parameters: String,
    /// The name of the notation.
    pub(crate) scheme: &'static str,
    /// The program that made the picture.
    pub(crate) software: String,
}

impl FileText {
    /// Keywords and texts of PNG, as Fooocus has them.
    pub(super) fn chunks(&self) -> [(&'static str, &str); 2] {
        [("parameters", &self.parameters), ("fooocus_scheme", self.scheme)]
    }

    /// An EXIF block without its head: a directory of TIFF. All texts are in the first directory, where programs that
    /// read the files of Fooocus look for them, and what is not ASCII is UTF-8.
    pub(super) fn exif(&self) -> Vec<u8> {
        // By rising numbers, which is how TIFF has them.
        let texts = [
            (SOFTWARE, &*self.software),
            (MAKER_NOTE, self.scheme),
            (USER_COMMENT, &self.parameters),
        ];
        let mut directory = b"MM\0*\0\0\0\x08".to_vec();
        directory.extend((texts.len() as u16).to_be_bytes());
        let after = directory.len() + 12 * texts.len() + 4;
        let mut values = Vec::new();
        for (tag, text) in texts {
            let value = [text.as_bytes(), b"\0"].concat();
            directory.extend(tag.to_be_bytes());
            directory.extend(ASCII.to_be_bytes());
            directory.extend((value.len() as u32).to_be_bytes());
            match value.len() {
                // So short a value stands in the place of where it stands.
                length @ ..=4 => {
                    directory.extend(&value);
                    directory.extend(&[0; 4][length..]);
                }
                _ => {
                    directory.extend(((after + values.len()) as u32).to_be_bytes());
                    values.extend(value);
                }
            }
        }
        // There is no other directory.
        directory.extend([0; 4]);
        [directory, values].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::FileText;

    #[test]
    fn exif_is_that_of_pillow() {
        let text = FileText {
            parameters: r#"{"a": "b"}"#.to_owned(),
            scheme: "fooocus",
            software: "tagbrush v0.1.0".to_owned(),
        };
        // Pillow 13.0 of the same texts, but for the byte that it adds to have an even number.
        let expected = b"MM\x00*\x00\x00\x00\x08\x00\x03\x011\x00\x02\x00\x00\x00\x10\x00\x00\x002\x92|\x00\x02\
            \x00\x00\x00\x08\x00\x00\x00B\x92\x86\x00\x02\x00\x00\x00\x0b\x00\x00\x00J\x00\x00\x00\x00\
            tagbrush v0.1.0\x00fooocus\x00{\"a\": \"b\"}\x00";
        assert_eq!(text.exif(), expected);
        let short = FileText { parameters: "ab".to_owned(), ..text }.exif();
        assert!(
            short.windows(12).any(|entry| entry == b"\x92\x86\x00\x02\x00\x00\x00\x03ab\x00\x00")
        );
    }
}
