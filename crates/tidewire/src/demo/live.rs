//! One view, shown as it changes: redrawn in place on a terminal, appended as plain lines elsewhere.
//!
//! Each picture is one snapshot of the view, read with a SELECT like any other client's.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tidewire_engine::{Engine, Outcome, Session};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::demo::{say, table};
use crate::failure::Failure;

const QUERY: &str = "SELECT * FROM revenue_by_city ORDER BY revenue DESC";
/// Often enough to look alive, seldom enough to be read.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
/// Lines that are kept are fewer.
const APPEND_INTERVAL: Duration = Duration::from_secs(1);

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const CLEAR_LINE: &str = "\x1b[2K";

/// Shows the view until `run_for` is over; for ever without.
pub async fn show(engine: &Arc<Engine>, session: &mut Session, run_for: Option<Duration>) -> Result<(), Failure> {
    let on_terminal = std::io::stdout().is_terminal();
    let deadline = run_for.map(|time| Instant::now() + time);
    let mut ticks = interval(if on_terminal { REDRAW_INTERVAL } else { APPEND_INTERVAL });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    say(format_args!("{QUERY};   -- live; Ctrl-C ends the demo\n"));

    let mut n_lines_before = 0;
    let mut rows_before = vec![];
    while deadline.is_none_or(|deadline| Instant::now() < deadline) {
        ticks.tick().await;
        let rows = snapshot(session).await?;
        let status = status_line(engine);
        if on_terminal {
            let lines: Vec<String> = rows.into_iter().chain(["".to_owned(), status]).collect();
            redraw(&lines, n_lines_before);
            n_lines_before = lines.len();
        } else if rows != rows_before {
            say(format_args!("{}\n{status}\n", rows.join("\n")));
            rows_before = rows;
        }
    }
    Ok(())
}

/// Gives the terminal back as it was.
pub fn leave() {
    if std::io::stdout().is_terminal() {
        say(format_args!("{SHOW_CURSOR}"));
    }
}

async fn snapshot(session: &mut Session) -> Result<Vec<String>, Failure> {
    let statement = tidewire_sql::parse(QUERY)?.into_iter().next().ok_or_else(|| Failure::new("no query to show"))?;
    let prepared = session.prepare(statement, &[]).await?;
    let Outcome::Rows { schema, rows, .. } = session.execute(&prepared, vec![]).await? else {
        return Err(Failure::new("the query to show gave no rows"));
    };
    let batches: Vec<_> = rows.try_collect().await?;
    table::lines(&schema, &batches).map_err(|error| Failure::new(error.to_string()))
}

fn status_line(engine: &Engine) -> String {
    let status = engine.status();
    format!("epoch {}, {} rows in, {} dead letters", status.epoch.0, status.n_input_rows, status.n_dead_letters)
}

/// Draws over the lines of the picture before.
fn redraw(lines: &[String], n_lines_before: usize) {
    let mut picture = String::from(HIDE_CURSOR);
    if n_lines_before > 0 {
        picture.push_str(&format!("\x1b[{n_lines_before}A"));
    }
    for line in lines {
        picture.push_str(&format!("{CLEAR_LINE}{line}\n"));
    }
    // A picture that is shorter than the one before: what is left below it goes.
    picture.push_str("\x1b[0J");
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(picture.as_bytes()).and_then(|()| out.flush());
}
