//! Runs the commands in `docs/reference/cli` and `tests/cmd` and compares what they print.

#[test]
fn commands_print_what_the_documents_show() {
    trycmd::TestCases::new()
        .env("NO_COLOR", "1")
        .case("../README.md")
        .case("../docs/reference/cli/*.md")
        .case("tests/cmd/*.trycmd");
}
