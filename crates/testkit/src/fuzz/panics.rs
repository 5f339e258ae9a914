//! Sees panics on any thread of the process: the engine catches those of operators, the planner those of DataFusion's
//! rules, and each is a finding.

use parking_lot::Mutex;
use std::sync::Once;

static LAST: Mutex<Option<String>> = Mutex::new(None);
static WATCH: Once = Once::new();

/// From now on panics are noted, and not printed.
pub fn watch() {
    WATCH.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map(|l| format!("{}:{}", short(l.file()), l.line())).unwrap_or_default();
            let words = info.payload_as_str().unwrap_or_default();
            let words: String = words.chars().take(120).collect();
            LAST.lock().get_or_insert(format!("{place} {}", words.lines().next().unwrap_or_default()));
        }));
    });
}

/// The first panic since the last call.
pub(super) fn take() -> Option<String> {
    LAST.lock().take()
}

/// The path from its crate on.
fn short(path: &str) -> &str {
    path.rfind("/src/").and_then(|src| path.get(..src)?.rfind('/')).and_then(|at| path.get(at + 1..)).unwrap_or(path)
}
