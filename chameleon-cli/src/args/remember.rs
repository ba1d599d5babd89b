//! Flags of `chameleon remember` and `chameleon forget`.

use std::path::PathBuf;

use clap::Args;

use super::data::DataArgs;

/// `chameleon remember`
#[derive(Debug, Args)]
#[command(mut_arg("group", |arg| arg.required_unless_present("group_field")))]
pub(crate) struct RememberArgs {
    /// Adapter folder written by `chameleon train --method attention`
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: PathBuf,
    /// The group that all rows belong to, such as a customer
    #[arg(long, value_name = "KEY", conflicts_with = "group_field")]
    pub(crate) group: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// `chameleon forget`
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// Adapter folder with exemplars
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: PathBuf,
    /// The group
    #[arg(long, value_name = "KEY")]
    pub(crate) group: String,
    /// Forget only the exemplar with this number
    #[arg(long, value_name = "ID")]
    pub(crate) example: Option<u64>,
}
