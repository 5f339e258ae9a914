//! SHOW and DESCRIBE.

use tidewire_types::Result;

use crate::parser::StatementParser;
use crate::{Show, Statement};

impl StatementParser<'_> {
    /// `SHOW STREAMS`, `SHOW CREATE kind name`, `SHOW setting`.
    pub fn show(&mut self) -> Result<Statement> {
        self.skip();
        let lists: [(&[&str], Show); 6] = [
            (&["SOURCES"], Show::Sources),
            (&["STREAMS"], Show::Sources),
            (&["TABLES"], Show::Tables),
            (&["VIEWS"], Show::Views),
            (&["MATERIALIZED", "VIEWS"], Show::MaterializedViews),
            (&["JOBS"], Show::Jobs),
        ];
        if let Some((_, show)) = lists.into_iter().find(|(words, _)| self.words(words)) {
            return Ok(Statement::Show(show));
        }
        if self.word("INDEXES") || self.word("INDEX") || self.word("INDICES") {
            let from = self.word("FROM") || self.word("IN") || self.word("ON");
            let relation = if from { Some(self.object_name()?) } else { None };
            return Ok(Statement::Show(Show::Indexes(relation)));
        }
        if self.word("COLUMNS") {
            if !self.word("FROM") {
                self.expect("IN")?;
            }
            return Ok(Statement::Show(Show::Columns(self.object_name()?)));
        }
        if self.word("CREATE") {
            let Some(kind) = self.object_kind() else { return self.unexpected() };
            return Ok(Statement::Show(Show::Create(kind, self.object_name()?)));
        }
        self.show_setting()
    }

    /// `DESCRIBE t`.
    pub fn describe(&mut self) -> Result<Statement> {
        self.skip();
        Ok(Statement::Show(Show::Columns(self.object_name()?)))
    }
}
