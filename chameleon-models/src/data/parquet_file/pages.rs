//! Pages whose sizes are plausible: the decoders behind them reserve what a page header claims.

use parquet::basic::Type;
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
}

impl CheckedPages {
    pub(super) fn new(inner: Box<dyn PageReader>, physical_type: Type, is_list: bool) -> Self {
        Self {
            inner,
            physical_type,
            is_list,
        }
    }

    fn check(&self, page: &Page) -> Result<()> {
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
