//! Where the metadata of GGUF files hold the keys of a `config.json`.

/// A key of a `config.json` and its place in GGUF.
#[derive(Debug)]
pub(crate) struct KeyRow {
    /// In `config.json`.
    pub(crate) key: &'static str,
    /// In the metadata, behind the name of the architecture and a point.
    pub(crate) gguf: &'static str,
    pub(crate) kind: Kind,
}

/// What a key holds, and whether every file has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A count, perhaps repeated for each layer.
    Count,
    /// A count that may be absent; zero counts as absent.
    OptionalCount,
    /// A number.
    Number,
    /// A number that may be absent.
    OptionalNumber,
    /// A switch that may be absent.
    OptionalFlag,
    /// The same in every file.
    Text(&'static str),
    /// Whether there is a tensor of the name.
    HasTensor,
}

/// A row of a table.
pub(crate) const fn key(key: &'static str, gguf: &'static str, kind: Kind) -> KeyRow {
    KeyRow { key, gguf, kind }
}
