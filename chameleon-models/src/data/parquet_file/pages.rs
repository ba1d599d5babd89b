//! Pages whose sizes and order are plausible: the decoders behind them reserve what a page header claims, and panic where
//! a page refers to a dictionary that never came.

use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

/// No writer makes pages near this; one page of each column is in memory at a time.
const MAX_PAGE_BYTES: usize = 256 << 20;
/// Values of a page in a list column: a row takes as many as it likes, so they are bounded together.
const MAX_LIST_VALUES: u32 = 1 << 24;

pub(super) struct CheckedPages {
    inner: Box<dyn PageReader>,
    physical_type: Type,
    is_list: bool,
    has_dictionary: bool,
}

impl CheckedPages {
    pub(super) fn new(inner: Box<dyn PageReader>, physical_type: Type, is_list: bool) -> Self {
        Self {
            inner,
            physical_type,
            is_list,
            has_dictionary: false,
        }
    }

    fn check(&mut self, page: &Page) -> Result<()> {
        let num_bytes = page.buffer().len();
        if num_bytes > MAX_PAGE_BYTES {
            return Err(ParquetError::General(format!(
                "a page of {num_bytes} bytes, expected at most {MAX_PAGE_BYTES}"
            )));
        }
        let num_values = page.num_values();
        let impossible = match page {
            Page::DictionaryPage { .. } => {
                num_values as usize > num_bytes / min_bytes(self.physical_type)
            }
            Page::DataPage { .. } | Page::DataPageV2 { .. } => {
                self.is_list && num_values > MAX_LIST_VALUES
            }
        };
        if impossible {
            return Err(ParquetError::General(format!(
                "a page of {num_bytes} bytes claims {num_values} values"
            )));
        }
        self.check_order(page)
    }

    /// Bytes of levels within the page, and a dictionary before the pages that point into it.
    fn check_order(&mut self, page: &Page) -> Result<()> {
        if let Page::DataPageV2 {
            buf,
            def_levels_byte_len,
            rep_levels_byte_len,
            ..
        } = page
        {
            let num_level_bytes = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
            if num_level_bytes > buf.len() as u64 {
                return Err(ParquetError::General(format!(
                    "a page of {} bytes claims {num_level_bytes} bytes of levels",
                    buf.len()
                )));
            }
        }
        match page {
            Page::DictionaryPage { .. } => self.has_dictionary = true,
            Page::DataPage { encoding, .. } | Page::DataPageV2 { encoding, .. } => {
                // The older name of the same encoding still occurs in files.
                let needs_dictionary =
                    [Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY].contains(encoding);
                if needs_dictionary && !self.has_dictionary {
                    return Err(ParquetError::General(
                        "a page refers to a dictionary that is not there".to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The least that a value of a dictionary takes.
fn min_bytes(physical_type: Type) -> usize {
    match physical_type {
        Type::BOOLEAN | Type::FIXED_LEN_BYTE_ARRAY => 1,
        Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.inner.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.inner.skip_next_page()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OnePage(Option<Page>);

    impl Iterator for OnePage {
        type Item = Result<Page>;

        fn next(&mut self) -> Option<Self::Item> {
            self.0.take().map(Ok)
        }
    }

    impl PageReader for OnePage {
        fn get_next_page(&mut self) -> Result<Option<Page>> {
            Ok(self.0.take())
        }

        fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
            Ok(None)
        }

        fn skip_next_page(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn error_of(page: Page) -> String {
        CheckedPages::new(Box::new(OnePage(Some(page))), Type::BYTE_ARRAY, false)
            .get_next_page()
            .err()
            .unwrap()
            .to_string()
    }

    #[test]
    fn a_page_without_its_dictionary_is_an_error() {
        for encoding in [Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY] {
            let error = error_of(Page::DataPage {
                buf: vec![0; 8].into(),
                num_values: 1,
                encoding,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            });
            assert!(error.contains("a dictionary that is not there"), "{error}");
        }
    }

    #[test]
    fn levels_longer_than_their_page_are_an_error() {
        let error = error_of(Page::DataPageV2 {
            buf: vec![0; 8].into(),
            num_values: 1,
            encoding: Encoding::PLAIN,
            num_nulls: 0,
            num_rows: 1,
            def_levels_byte_len: u32::MAX,
            rep_levels_byte_len: 9,
            is_compressed: false,
            statistics: None,
        });
        assert!(error.contains("bytes of levels"), "{error}");
    }
}
