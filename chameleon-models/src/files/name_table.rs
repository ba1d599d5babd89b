//! What the tensors of a family are called, in each container and in the module, and how they are stored.

/// Everything about the names of a family's tensors.
#[derive(Debug)]
pub(crate) struct NameTable {
    /// What Hugging Face puts before every name but the head's; the files of base models leave it out.
    pub(crate) prefix: &'static str,
    /// One row for each tensor of the model, in groups that families share.
    pub(crate) rows: &'static [&'static [NameRow]],
    /// Names that end in one of these hold tables that the model computes for itself.
    pub(crate) buffers: &'static [&'static str],
}

/// The names of a tensor, or of one tensor of every layer: `*` stands for the layer's index.
#[derive(Debug)]
pub(crate) struct NameRow {
    hugging_face: &'static str,
    gguf: &'static str,
    field: &'static str,
    layout: Layout,
}

/// A row of a table: its names in Hugging Face's files, in GGUF and in the module, and its layout.
pub(crate) const fn row(
    hugging_face: &'static str,
    gguf: &'static str,
    field: &'static str,
    layout: Layout,
) -> NameRow {
    NameRow {
        hugging_face,
        gguf,
        field,
        layout,
    }
}

/// How the containers store a tensor, compared with the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Both as the module does.
    Same,
    /// Both `[out, in]`; the module has `[in, out]`.
    Linear,
    /// Hugging Face `[in, out]` as the module, GGUF `[out, in]`.
    Conv1d,
    /// As [`Linear`](Self::Linear) or, for a bias, [`Same`](Self::Same); but GGUF stores row `i` and row
    /// `i + head_dim / 2` of each head as neighbours, for its rotary kernel.
    Rotary(Heads),
    /// As [`Linear`](Self::Linear) or, for a bias, [`Same`](Self::Same): query, key and value of the first head, then of
    /// the next one; but GGUF stores all queries, then all keys, then all values.
    ByHead,
    /// The scale of a norm, which Hugging Face stores less one, and GGUF as the module has it.
    OneLess,
}

/// Which heads the rows of a tensor are divided into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heads {
    /// Those of the queries.
    Query,
    /// Those of keys and values.
    KeyValue,
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    /// Safetensors with the names of Hugging Face.
    HuggingFace,
    /// GGUF with the names of llama.cpp.
    Gguf,
}

/// What a stored name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundName {
    /// The whole name in Hugging Face's files.
    pub(crate) name: String,
    /// The path in the module.
    pub(crate) field: String,
    pub(crate) layout: Layout,
}

impl NameTable {
    /// The tensor with this name in a container; `None` if the family has no such tensor.
    pub(crate) fn find(&self, container: Container, stored: &str) -> Option<FoundName> {
        let stored = match container {
            Container::HuggingFace => self.without_prefix(stored),
            Container::Gguf => stored,
        };
        self.rows.iter().copied().flatten().find_map(|row| {
            let pattern = match container {
                Container::HuggingFace => self.without_prefix(row.hugging_face),
                Container::Gguf => row.gguf,
            };
            let layer_idx = layer_idx(pattern, stored)?;
            Some(FoundName {
                name: with_layer(row.hugging_face, layer_idx),
                field: with_layer(row.field, layer_idx),
                layout: row.layout,
            })
        })
    }

    /// The name in Hugging Face's files of a field, and how they store it.
    pub(crate) fn of_field(&self, field: &str) -> Option<(String, Layout)> {
        self.rows.iter().copied().flatten().find_map(|row| {
            let layer_idx = layer_idx(row.field, field)?;
            Some((with_layer(row.hugging_face, layer_idx), row.layout))
        })
    }

    /// Whether a tensor of Hugging Face's files holds no weights but a table that the model computes for itself.
    pub(crate) fn is_buffer(&self, name: &str) -> bool {
        self.buffers.iter().any(|ending| name.ends_with(ending))
    }

    /// The layer and the module of a linear weight by its name in Hugging Face's files.
    pub(crate) fn linear_weight<'a>(&self, name: &'a str) -> Option<(usize, &'a str)> {
        let (_, inside) = self.without_prefix(name).split_once('.')?;
        let (layer_idx, path) = inside.strip_suffix(".weight")?.split_once('.')?;
        Some((layer_idx.parse().ok()?, path))
    }

    /// The text part of a model with other parts as well has one more prefix.
    fn without_prefix<'a>(&self, name: &'a str) -> &'a str {
        const TEXT_PARTS: [&str; 2] = ["language_model.", "model.language_model."];
        let mut parts = TEXT_PARTS.iter();
        let name = parts
            .find_map(|prefix| name.strip_prefix(prefix))
            .unwrap_or(name);
        name.strip_prefix(self.prefix).unwrap_or(name)
    }
}

fn with_layer(pattern: &str, layer_idx: Option<usize>) -> String {
    match layer_idx {
        Some(layer_idx) => pattern.replace('*', &layer_idx.to_string()),
        None => pattern.to_owned(),
    }
}

/// The layer index that makes `pattern` equal to `name`; `Some(None)` if they are equal without one.
#[expect(
    clippy::option_option,
    reason = "whether they match, and the index if there is one"
)]
fn layer_idx(pattern: &str, name: &str) -> Option<Option<usize>> {
    let Some((head, tail)) = pattern.split_once('*') else {
        return (pattern == name).then_some(None);
    };
    let layer = name.strip_prefix(head)?.strip_suffix(tail)?;
    let is_number = layer.bytes().all(|byte| byte.is_ascii_digit());
    Some(Some(layer.parse().ok().filter(|_| is_number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: NameTable = NameTable {
        prefix: "model.",
        rows: &[
            &[row("model.a.weight", "b.weight", "c", Layout::Same)],
            &[row(
                "model.layers.*.q.weight",
                "blk.*.attn_q.weight",
                "layers.*.query",
                Layout::Linear,
            )],
        ],
        buffers: &[".table"],
    };

    #[test]
    fn every_name_of_a_tensor_leads_to_the_same_field() {
        let found = |container, name| {
            let found = TABLE.find(container, name)?;
            Some((found.name, found.field))
        };
        let expected = (
            "model.layers.12.q.weight".to_owned(),
            "layers.12.query".to_owned(),
        );
        for (container, name) in [
            (Container::HuggingFace, "model.layers.12.q.weight"),
            (Container::HuggingFace, "layers.12.q.weight"),
            (
                Container::HuggingFace,
                "language_model.model.layers.12.q.weight",
            ),
            (
                Container::HuggingFace,
                "model.language_model.layers.12.q.weight",
            ),
            (Container::Gguf, "blk.12.attn_q.weight"),
            (Container::Gguf, "blk.012.attn_q.weight"),
        ] {
            assert_eq!(found(container, name).as_ref(), Some(&expected), "{name}");
        }
        assert_eq!(
            TABLE.linear_weight("model.layers.12.q.weight"),
            Some((12, "q"))
        );
        assert_eq!(TABLE.linear_weight("model.norm.weight"), None);
        assert_eq!(
            TABLE.of_field("layers.12.query"),
            Some((expected.0, Layout::Linear))
        );
        for (container, name) in [
            (Container::Gguf, "model.layers.12.q.weight"),
            (Container::HuggingFace, "blk.12.attn_q.weight"),
            (Container::HuggingFace, "layers.x.q.weight"),
            (Container::HuggingFace, "layers..q.weight"),
            (Container::HuggingFace, "layers.+1.q.weight"),
            (
                Container::HuggingFace,
                "layers.99999999999999999999.q.weight",
            ),
            (Container::HuggingFace, "a.weight.b"),
        ] {
            assert_eq!(found(container, name), None, "{name}");
        }
    }
}
