//! The project's own files, read once.

use std::io;
use std::path::Path;

/// One file of text.
pub struct TextFile {
    /// From the top of the project, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// All files of text.
pub struct Workspace {
    /// All of them.
    pub files: Vec<TextFile>,
}

const TEXT_EXTENSIONS: &[&str] = &["rs", "toml", "md", "sql", "slt", "yml", "yaml", "xml", "sh", "lock"];
/// Files of text without such an ending.
const TEXT_NAMES: &[&str] = &["Dockerfile", "run", "kafka", ".gitignore", ".dockerignore"];
/// What is built or written at run time, and git's own.
const OUTSIDE: &[&str] = &["target", ".git", "tidewire-data"];

impl Workspace {
    /// Reads them.
    pub fn read() -> io::Result<Workspace> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
        let mut files = vec![];
        read_folder(root, root, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Workspace { files })
    }

    /// The Rust files.
    pub fn rust_files(&self) -> impl Iterator<Item = &TextFile> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// The text of one file; empty where it is missing.
    pub fn text(&self, path: &str) -> &str {
        self.files.iter().find(|file| file.path == path).map_or("", |file| &file.text)
    }

    /// The folders of the crates, such as `crates/sql`.
    pub fn crates(&self) -> impl Iterator<Item = &str> {
        let manifests = self.files.iter().filter_map(|file| file.path.strip_suffix("/Cargo.toml"));
        manifests.filter(|folder| folder.starts_with("crates/"))
    }
}

fn read_folder(root: &Path, folder: &Path, files: &mut Vec<TextFile>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() && !OUTSIDE.contains(&name.as_str()) {
            read_folder(root, &path, files)?;
        } else if kind.is_file() && is_text(&name) {
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            // Test data that is wrong on purpose may be no UTF-8.
            let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            files.push(TextFile { path: relative, text });
        }
    }
    Ok(())
}

fn is_text(name: &str) -> bool {
    TEXT_NAMES.contains(&name) || name.rsplit_once('.').is_some_and(|(_, ending)| TEXT_EXTENSIONS.contains(&ending))
}
