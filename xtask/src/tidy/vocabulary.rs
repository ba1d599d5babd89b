//! The phrases and names that [`super::phrases`] refuses: a pattern, and what to write instead.
//!
//! Cases are ignored unless a pattern says otherwise. A phrase belongs here when a reader who knows the field has to
//! guess what it means, and when it hardly ever stands for something else.

/// Patterns, each with the phrase in short and the plain words for it.
pub(super) const PHRASES: &[(&str, &str)] = &[
    // What a function or a machine does.
    (
        r"\banswer(?:s|ed|ing)? with\b",
        "`answers with`: returns, responds with",
    ),
    (
        r"\banswers (?:whether|if)\b",
        "`answers whether`: returns whether",
    ),
    (r"\bhears?\b", "`hears`: receives, is called with"),
    (
        r"\b(?:is|are|was|were|be|been|being) told\b(?: \w+)?",
        "`is told`: receives, is given, is reported",
    ),
    (
        r"\b(?:is|are|was|were) said\b",
        "`is said`: is printed, is reported, is documented",
    ),
    (
        r"\btakes? over\b",
        "`takes over`: is used instead of, replaces, copies",
    ),
    (r"\btakes? on\b", "`takes on`: accepts"),
    (
        r"\btakes? (?:its|their) place\b",
        "`takes its place`: replaces it",
    ),
    (r"\bhands? out\b", "`hands out`: returns, delivers"),
    (
        r"'s? business\b",
        "`is X's business`: is defined by X, is handled by X",
    ),
    (
        r"\bspeaks? (?:of|for)\b",
        "`speaks of`: names, means, represents",
    ),
    (r"\bcomes? to rest\b", "`come to rest`: become idle"),
    (r"\btaken apart\b", "`taken apart`: split, parsed"),
    (
        r"\btaken at its word\b",
        "`taken at its word`: read strictly",
    ),
    (r"\bin one go\b", "`in one go`: uninterrupted, at once"),
    (r"\bunasked\b", "`unasked`: by default"),
    (r"\bbrought along\b", "`brought along`: provided"),
    // What something is or is not.
    (r"\S+ is no \S+", "`is no X`: is not a valid X, is not an X"),
    (r"\bthat are none\b", "`that are none`: invalid, non-finite"),
    (r"\bnothing where\b", "`nothing where`: `None` if, empty if"),
    (r"\bmeans? no good\b", "`means no good`: is malicious"),
    (
        r"\bvalue means nothing\b",
        "`its value means nothing`: only its gradient is meaningful",
    ),
    (r"\bso to say\b", "`so to say`: leave it out"),
    (r"\bof ours\b", "`of ours`: our own, in this program"),
    (
        r"\bif nobody else holds\b",
        "`if nobody else holds it`: if it is uniquely owned",
    ),
    (
        r"\bmore than any fit comes to\b",
        "`more than any fit comes to`: an upper bound, never reached",
    ),
    // Parameters, values and layouts.
    (
        r"\btrained numbers?\b",
        "`trained numbers`: trainable parameters",
    ),
    (
        r"\bas numbers\b",
        "`as numbers`: dequantised to f32, as f32, as a list of floats",
    ),
    (r"\b(?:32-bit|16-bit) numbers\b", "`32-bit numbers`: f32"),
    (
        r"\binto (?:32-bit )?numbers\b",
        "`into numbers`: dequantised to f32",
    ),
    (r"\bkept in numbers\b", "`kept in numbers`: stored in bulk"),
    (
        r"\bevery number of (?:it|its|both|these|the)\b",
        "`every number of`: every value of, every parameter of",
    ),
    (r"\bsixteen bits\b", "`sixteen bits`: f16, bf16"),
    (r"\bspread 1\b", "`spread 1`: unit variance"),
    (r"\bturned view\b", "`turned view`: transposed view"),
    (
        r"\b(?:is|are|was|were|be) turned\b(?: \w+)?",
        "`is turned`: is transposed, is rotated (rotary embedding)",
    ),
    (r"\bturned\(", "`turned()`: `transposed`, `rotated`"),
    (
        r"half.?turn",
        "`HalfTurn`: `RotaryHalves`, half-split rotary embedding",
    ),
    (
        r"\bin the memory of\b",
        "`in the memory of`: in place of, in the buffer of",
    ),
    (
        r"\bkernels? for the processor\b",
        "`kernel for the processor`: CPU kernel",
    ),
    // Training and experiments.
    (
        r"\ban equal\b(?: \w+)?",
        "`an equal`: a parameter-matched baseline",
    ),
    (r"\bcompany\b", "`company`: baselines and controls"),
    (r"\bjumps? about\b", "`jump about`: are noisy"),
    (
        r"\bforgets slowly\b",
        "`forgets slowly`: exponential moving average",
    ),
    (r"\btells? best\b", "`tell best`: predict best"),
    (
        r"\bcrowd(?:s|ed|ing)?\b",
        "`crowd`: batch, load; of a memory: density",
    ),
    // Names.
    (r"trainee(?:\.safetensors)?", "`Trainee`: `AdapterModule`"),
    (r"(?-i:Lanes?(?:[^a-z]|$))", "`Lane`: `DecodeBatch`"),
    (r"shel(?:f|ves)", "`Shelf`: `CacheBlock`"),
    (r"wishes", "`Wishes`: `RequestOptions`"),
    (r#""?duels?"?"#, "`Duel`: `PairedComparison`"),
    (r"opponent", "`Opponent`: baseline, control"),
    (r"(?-i:Courses?(?:[^a-z]|$))", "`Course`: trial, run, fit"),
    (r"recollection", "`Recollection`: `MemoryMatch`"),
    (r"(?-i:Patient(?:[^a-z]|$))", "`Patient`: `ReadTimeout`"),
    (r"(?-i:(?:\w+::|\w+ )Numbers\b)", "`Numbers`: `F32`"),
    (
        r"(?-i:UsagePiece|UsageChunk::(?:Told|Left))",
        "`UsagePiece::Told`: `UsageChunk::Sent`",
    ),
    (r"(?-i:FactorWriter)", "`FactorWriter`: `FactorProducer`"),
    (r"(?-i:MemoryMaking)", "`MemoryMaking`: `MemoryStage`"),
    (r"\bvotes?\b|(?-i:Votes)", "`votes`: attention weights"),
    (r"(?-i:Evidence)", "`Evidence`: gate features"),
    (r"favourites", "`favourites`: nearest"),
];

/// What stands in a match that is plain English after all.
pub(super) const EXCUSED: &[&str] = &[
    "there is no ",
    "where is no ",
    "is no longer",
    "is no more",
    "is no less",
    "is no better",
    "is no worse",
    "told apart",
    "turned into",
    "turned on",
    "turned off",
    "an equal number",
    "an equal share",
    // Names in files that are written and read.
    "trainee.safetensors",
    "\"duels\"",
];
