//! Checked configs of the commands that change exemplars.

use std::path::PathBuf;

use chameleon_models::training::TextSource;

use super::data::data;
use crate::args::RememberArgs;

/// `chameleon remember`
#[derive(Debug)]
pub(crate) struct RememberConfig {
    pub(crate) adapter: PathBuf,
    pub(crate) group: RowGroup,
    pub(crate) data: TextSource,
}

/// Which group a row belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowGroup {
    /// All to this one.
    Key(String),
    /// The one that its field of groups names.
    Field,
}

pub(super) fn remember(args: RememberArgs) -> RememberConfig {
    RememberConfig {
        adapter: args.adapter,
        group: args.group.map_or(RowGroup::Field, RowGroup::Key),
        data: data(args.data),
    }
}
