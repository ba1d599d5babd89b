//! GGUF files written byte by byte, so that every length in them can lie.

use chameleon_core::stored::TensorDtype;

/// A metadata value.
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(&'static str),
    Texts(Vec<&'static str>),
    I32s(Vec<i32>),
    /// Anything else: the type number and the bytes after it.
    Raw(u32, Vec<u8>),
}

/// A tensor, `dims` innermost first as in the file.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<u64>,
    pub(crate) dtype: u32,
    pub(crate) offset: u64,
}

/// A GGUF file to be.
pub(crate) struct GgufBuilder {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) num_tensors: Option<u64>,
    pub(crate) num_values: Option<u64>,
    pub(crate) values: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) alignment: usize,
    pub(crate) data: Vec<u8>,
}

pub(crate) const F32: u32 = 0;

impl GgufBuilder {
    /// A Llama of no layers with a byte-level tokenizer of three tokens: small, and valid.
    pub(crate) fn valid() -> Self {
        let mut builder = Self {
            magic: *b"GGUF",
            version: 3,
            num_tensors: None,
            num_values: None,
            values: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        };
        builder.set("general.architecture", Value::Text("llama"));
        for (key, count) in [
            ("llama.context_length", 8),
            ("llama.embedding_length", 4),
            ("llama.feed_forward_length", 4),
            ("llama.block_count", 1),
            ("llama.attention.head_count", 1),
            ("tokenizer.ggml.bos_token_id", 0),
            ("tokenizer.ggml.eos_token_id", 1),
        ] {
            builder.set(key, Value::U32(count));
        }
        builder.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        builder.set("tokenizer.ggml.model", Value::Text("gpt2"));
        builder.set("tokenizer.ggml.pre", Value::Text("smollm"));
        builder.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
        builder.set(
            "tokenizer.ggml.tokens",
            Value::Texts(vec!["<s>", "</s>", "a", "b", "ab"]),
        );
        builder.set(
            "tokenizer.ggml.token_type",
            Value::I32s(vec![3, 3, 1, 1, 1]),
        );
        builder.set("tokenizer.ggml.merges", Value::Texts(vec!["a b"]));
        builder.add_f32("token_embd.weight", &[4, 5]);
        builder.add_f32("blk.0.attn_q.weight", &[4, 4]);
        builder.add_f32("output_norm.weight", &[4]);
        builder
    }

    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.values.retain(|(existing, _)| existing != key);
        self.values.push((key.to_owned(), value));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.values.retain(|(existing, _)| existing != key);
    }

    pub(crate) fn add_f32(&mut self, name: &str, dims: &[u64]) {
        let num_values = usize::try_from(dims.iter().product::<u64>()).unwrap();
        let offset = self.data.len() as u64;
        for index in 0..num_values {
            self.data.extend((index as f32).to_le_bytes());
        }
        self.data
            .resize(self.data.len().next_multiple_of(self.alignment), 0);
        self.tensors.push(Tensor {
            name: name.to_owned(),
            dims: dims.to_vec(),
            dtype: F32,
            offset,
        });
    }

    /// A tensor of blocks, none of whose scales is large.
    pub(crate) fn add_stored(&mut self, name: &str, dims: &[u64], number: u32, dtype: TensorDtype) {
        let offset = self.data.len();
        let num_values = usize::try_from(dims.iter().product::<u64>()).unwrap();
        let num_bytes = dtype.num_bytes(num_values).unwrap();
        let seed = name.len() + offset / 32;
        self.data.extend(
            (0..num_bytes).map(|idx| u8::try_from((idx * 37 + idx / 11 + seed) % 53).unwrap()),
        );
        self.data
            .resize(self.data.len().next_multiple_of(self.alignment), 0);
        self.tensors.push(Tensor {
            name: name.to_owned(),
            dims: dims.to_vec(),
            dtype: number,
            offset: offset as u64,
        });
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors
            .iter_mut()
            .find(|tensor| tensor.name == name)
            .unwrap()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(
            self.num_tensors
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        bytes.extend(
            self.num_values
                .unwrap_or(self.values.len() as u64)
                .to_le_bytes(),
        );
        for (key, value) in &self.values {
            put_text(&mut bytes, key);
            put_value(&mut bytes, value);
        }
        for tensor in &self.tensors {
            put_text(&mut bytes, &tensor.name);
            bytes.extend(u32::try_from(tensor.dims.len()).unwrap().to_le_bytes());
            for dim in &tensor.dims {
                bytes.extend(dim.to_le_bytes());
            }
            bytes.extend(tensor.dtype.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(&self.data);
        bytes
    }
}

pub(crate) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    let put_list = |bytes: &mut Vec<u8>, item_type: u32, len: usize| {
        bytes.extend(9_u32.to_le_bytes());
        bytes.extend(item_type.to_le_bytes());
        bytes.extend((len as u64).to_le_bytes());
    };
    match value {
        Value::U32(number) => {
            bytes.extend(4_u32.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        Value::F32(number) => {
            bytes.extend(6_u32.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        Value::Bool(flag) => {
            bytes.extend(7_u32.to_le_bytes());
            bytes.push(u8::from(*flag));
        }
        Value::Text(text) => {
            bytes.extend(8_u32.to_le_bytes());
            put_text(bytes, text);
        }
        Value::Texts(texts) => {
            put_list(bytes, 8, texts.len());
            for text in texts {
                put_text(bytes, text);
            }
        }
        Value::I32s(numbers) => {
            put_list(bytes, 5, numbers.len());
            for number in numbers {
                bytes.extend(number.to_le_bytes());
            }
        }
        Value::Raw(value_type, raw) => {
            bytes.extend(value_type.to_le_bytes());
            bytes.extend(raw);
        }
    }
}
