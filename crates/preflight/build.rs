//! Fails early, in words, where the C parts of the build would fail late and at length.

#[path = "src/tool.rs"]
#[expect(dead_code, reason = "the part for the tests belongs to the library")]
mod tool;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/tool.rs");
    for line in tool::advice(&tool::missing(tool::BUILD)) {
        println!("cargo::error={line}");
    }
}
