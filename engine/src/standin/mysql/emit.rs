//! MySQL statements to SQLite's.
//!
//! Contract: pure but for looking tables up. Names are resolved against the declared tables
//! (unknown ones are MySQL's 1054 and 1146), so that no name is taken for a text; every
//! construct is either translated or refused by name with 1235.
//! Not modelled: right-to-left effects inside one UPDATE, user variables in expressions,
//! window frames, multi-table writes.

use super::functions;
use super::schema::{ColumnType, TableDef, literal, quote};
use super::session::{Failure, unsupported};
use crate::protocol::mysql::result::{Column, flags, types};
use rusqlite::types::Value as Cell;
use sqlparser::ast::{self, BinaryOperator as B, Expr, SelectItem, SetExpr, TableFactor};
use std::sync::Arc;

/// Columns and rows.
pub type Listing = (Vec<&'static str>, Vec<Vec<Cell>>);

/// Finds tables.
pub trait Tables {
    /// The table of that name in a database (the session's where none is given).
    ///
    /// # Errors
    /// 1146 where there is none.
    fn table(&self, database: Option<&str>, name: &str) -> Result<Arc<TableDef>, Failure>;
    /// A table of `information_schema`: columns and rows.
    ///
    /// # Errors
    /// 1235 where it is not kept.
    fn information(&self, name: &str) -> Result<Listing, Failure>;
    /// A value that only the session knows (`DATABASE()`, `@@x`, `@y`).
    fn fact(&self, expression: &str) -> Option<Cell>;
}

/// A column that a query gives.
#[derive(Debug, Clone)]
pub struct Out {
    /// Its name.
    pub name: String,
    /// Its type, where it is known before the rows are.
    pub kind: Option<ColumnType>,
    /// What the client is told.
    pub column: Option<Column>,
}

struct Source {
    alias: String,
    columns: Vec<Out>,
    /// Columns that a `USING` has merged into the left side.
    merged: Vec<String>,
}

/// Translates one statement.
pub struct Emitter<'a> {
    tables: &'a dyn Tables,
    scopes: Vec<Vec<Source>>,
    aliases: Vec<Vec<String>>,
    ctes: Vec<(String, Vec<Out>)>,
    /// The table whose new row `VALUES(x)` means, and its alias.
    duplicate: Option<String>,
    placeholders: usize,
    /// In HAVING and ORDER BY a name is an alias first, then a column.
    aliases_first: bool,
    /// What stands behind the aliases, while a HAVING is translated: there the storage takes a
    /// name for a column before it takes it for an alias.
    behind: Vec<(String, String)>,
    /// Whether the query locks what it reads.
    pub locks: bool,
}

type Emitted = Result<String, Failure>;

fn ident(name: &ast::ObjectName) -> Result<Vec<&str>, Failure> {
    name.0
        .iter()
        .map(|p| p.as_ident().map(|i| i.value.as_str()).ok_or_else(|| unsupported("a computed name")))
        .collect()
}

/// Database and name of a table.
///
/// # Errors
/// When the name has more parts.
pub fn table_name(name: &ast::ObjectName) -> Result<(Option<&str>, &str), Failure> {
    match ident(name)?.as_slice() {
        [table] => Ok((None, table)),
        [database, table] => Ok((Some(database), table)),
        _ => Err(unsupported(&format!("the name {name}"))),
    }
}

fn int() -> ColumnType {
    ColumnType::Int { bytes: 8, unsigned: false, flag: false }
}

fn text() -> ColumnType {
    ColumnType::Text { max: 255, long: false, binary: false, fixed: false }
}

/// The columns of a table as a query gives them.
pub fn outs(table: &TableDef, alias: &str) -> Vec<Out> {
    let out = |c: &super::schema::ColumnDef| {
        let mut column = c.kind.column(&c.name);
        column.org_name.clone_from(&c.name);
        column.table = alias.to_owned();
        column.org_table.clone_from(&table.name);
        column.schema.clone_from(&table.database);
        column.flags |= if c.not_null { flags::NOT_NULL } else { 0 };
        column.flags |= if c.auto { flags::AUTO_INCREMENT } else { 0 };
        column.flags |= if table.primary().contains(&c.name) { flags::PRIMARY_KEY } else { 0 };
        Out { name: c.name.clone(), kind: Some(c.kind.clone()), column: Some(column) }
    };
    table.columns.iter().map(out).collect()
}

impl<'a> Emitter<'a> {
    /// An emitter over these tables.
    pub fn new(tables: &'a dyn Tables) -> Self {
        Emitter {
            tables,
            scopes: Vec::new(),
            aliases: Vec::new(),
            ctes: Vec::new(),
            duplicate: None,
            placeholders: 0,
            aliases_first: false,
            behind: Vec::new(),
            locks: false,
        }
    }

    /// A query: its text and columns.
    ///
    /// # Errors
    /// What MySQL says of it, or what is not translated.
    pub fn query(&mut self, query: &ast::Query) -> Result<(String, Vec<Out>), Failure> {
        let mut sql = String::new();
        let aliases_first = std::mem::take(&mut self.aliases_first);
        let behind = std::mem::take(&mut self.behind);
        let ctes = self.ctes.len();
        if let Some(with) = &query.with {
            let mut parts = Vec::new();
            for cte in &with.cte_tables {
                let name = cte.alias.name.value.clone();
                if with.recursive {
                    return Err(unsupported("WITH RECURSIVE"));
                }
                let (inner, mut columns) = self.query(&cte.query)?;
                let mut list = String::new();
                if !cte.alias.columns.is_empty() {
                    let names: Vec<&str> = cte.alias.columns.iter().map(|c| c.name.value.as_str()).collect();
                    for (column, name) in columns.iter_mut().zip(&names) {
                        column.name = (*name).to_owned();
                    }
                    list = format!(" ({})", names.iter().map(|n| quote(n)).collect::<Vec<_>>().join(", "));
                }
                parts.push(format!("{}{list} AS ({inner})", quote(&name)));
                self.ctes.push((name, columns));
            }
            sql = format!("WITH {} ", parts.join(", "));
        }
        self.locks |= !query.locks.is_empty();
        // Locks are of whole tables here: to skip the rows of others would be to skip them all.
        if let Some(how) = query.locks.iter().find_map(|lock| lock.nonblock.as_ref()) {
            return Err(unsupported(&how.to_string()));
        }
        let (body, columns) = self.set_expression(&query.body, query)?;
        self.ctes.truncate(ctes);
        self.aliases_first = aliases_first;
        self.behind = behind;
        sql += &body;
        Ok((sql, columns))
    }

    fn set_expression(&mut self, body: &SetExpr, query: &ast::Query) -> Result<(String, Vec<Out>), Failure> {
        let (mut sql, columns, depth) = match body {
            SetExpr::Select(select) => {
                let (sql, columns) = self.select(select)?;
                // ORDER BY still sees the tables and the aliases.
                (sql, columns, true)
            }
            other => {
                let (sql, columns) = self.operand(other)?;
                self.scopes.push(Vec::new());
                self.aliases.push(columns.iter().map(|c| c.name.clone()).collect());
                (sql, columns, true)
            }
        };
        if let Some(order) = &query.order_by {
            sql += &self.order_by(order)?;
        }
        if depth {
            self.scopes.pop();
            self.aliases.pop();
        }
        if let Some(limit) = &query.limit_clause {
            sql += &self.limit(limit)?;
        }
        Ok((sql, columns))
    }

    fn operand(&mut self, body: &SetExpr) -> Result<(String, Vec<Out>), Failure> {
        match body {
            SetExpr::Select(select) => {
                let result = self.select(select)?;
                self.scopes.pop();
                self.aliases.pop();
                Ok(result)
            }
            SetExpr::Query(query) => {
                let (sql, columns) = self.query(query)?;
                Ok((format!("SELECT * FROM ({sql})"), columns))
            }
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let (left, columns) = self.operand(left)?;
                let (right, _) = self.operand(right)?;
                let all = if matches!(set_quantifier, ast::SetQuantifier::All) { " ALL" } else { "" };
                let op = match op {
                    ast::SetOperator::Union => "UNION",
                    ast::SetOperator::Except => "EXCEPT",
                    ast::SetOperator::Intersect => "INTERSECT",
                    ast::SetOperator::Minus => return Err(unsupported("MINUS")),
                };
                Ok((format!("{left} {op}{all} {right}"), columns))
            }
            SetExpr::Values(values) => {
                let mut rows = Vec::new();
                for row in &values.rows {
                    let cells: Result<Vec<String>, Failure> =
                        row.content.iter().map(|e| self.expression(e)).collect();
                    rows.push(format!("({})", cells?.join(", ")));
                }
                let width = values.rows.first().map_or(0, |r| r.content.len());
                let out = |at| Out { name: format!("column_{at}"), kind: None, column: None };
                Ok((format!("VALUES {}", rows.join(", ")), (0..width).map(out).collect()))
            }
            other => Err(unsupported(&format!("{other}"))),
        }
    }

    fn order_by(&mut self, order: &ast::OrderBy) -> Emitted {
        match &order.kind {
            ast::OrderByKind::Expressions(list) => Ok(format!(" ORDER BY {}", self.order_list(list)?)),
            ast::OrderByKind::All(_) => Err(unsupported("ORDER BY ALL")),
        }
    }

    fn order_list(&mut self, list: &[ast::OrderByExpr]) -> Emitted {
        let mut parts = Vec::new();
        for item in list {
            let expression = self.aliased(&item.expr)?;
            let direction = match &item.options.sort {
                Some(ast::OrderBySort::Desc) => " DESC",
                _ => "",
            };
            parts.push(format!("{expression}{direction}"));
        }
        Ok(parts.join(", "))
    }

    /// An expression in which aliases come before columns.
    fn aliased(&mut self, expression: &Expr) -> Emitted {
        let before = std::mem::replace(&mut self.aliases_first, true);
        let sql = self.expression(expression);
        self.aliases_first = before;
        sql
    }

    /// A HAVING over this list.
    fn having(&mut self, having: &Expr, list: &[String], columns: &[Out]) -> Emitted {
        self.behind = columns.iter().map(|c| c.name.clone()).zip(list.iter().cloned()).collect();
        let sql = self.aliased(having);
        self.behind.clear();
        sql
    }

    fn limit(&mut self, limit: &ast::LimitClause) -> Emitted {
        Ok(match limit {
            // The placeholders keep their order in the text: `LIMIT offset, count` has the offset first.
            ast::LimitClause::OffsetCommaLimit { offset, limit } => {
                let offset = self.expression(offset)?;
                format!(" LIMIT {} OFFSET {offset}", self.expression(limit)?)
            }
            ast::LimitClause::LimitOffset { limit, offset, .. } => {
                let limit = limit.as_ref().map_or_else(|| Ok("-1".to_owned()), |l| self.expression(l))?;
                match offset {
                    Some(offset) => format!(" LIMIT {limit} OFFSET {}", self.expression(&offset.value)?),
                    None => format!(" LIMIT {limit}"),
                }
            }
        })
    }

    /// A select; leaves its scope open for ORDER BY.
    fn select(&mut self, select: &ast::Select) -> Result<(String, Vec<Out>), Failure> {
        if select.into.is_some() {
            return Err(unsupported("SELECT INTO"));
        }
        self.scopes.push(Vec::new());
        self.aliases.push(Vec::new());
        // The list stands first in the text, but needs the tables: count its placeholders first.
        let before = self.placeholders;
        let list_has = select
            .projection
            .iter()
            .map(|item| crate::protocol::mysql::fingerprint::placeholders(&item.to_string()))
            .sum::<usize>();
        self.placeholders += list_has;
        let from = self.from(&select.from)?;
        let after_from = std::mem::replace(&mut self.placeholders, before);
        let (parts, columns) = self.projection(&select.projection)?;
        let named = parts.iter().zip(&columns).map(|(sql, c)| format!("{sql} AS {}", quote(&c.name)));
        let list = named.collect::<Vec<_>>().join(", ");
        self.placeholders = after_from;
        if let Some(aliases) = self.aliases.last_mut() {
            aliases.extend(columns.iter().map(|c| c.name.clone()));
        }
        let distinct = match &select.distinct {
            None | Some(ast::Distinct::All) => "",
            Some(ast::Distinct::Distinct) => "DISTINCT ",
            Some(ast::Distinct::On(_)) => return Err(unsupported("DISTINCT ON")),
        };
        // MySQL lets HAVING pick single rows; the storage wants WHERE for that, and finds aliases there.
        let grouped = !matches!(&select.group_by, ast::GroupByExpr::Expressions(list, _) if list.is_empty());
        let picks = select.having.as_ref().filter(|having| !grouped && !aggregates(&list, having));
        let mut sql = format!("SELECT {distinct}{list}{from}");
        if let Some(selection) = &select.selection {
            // WHERE sees no aliases.
            let aliases = self.aliases.pop().unwrap_or_default();
            self.aliases.push(Vec::new());
            let selection = self.expression(selection)?;
            self.aliases.pop();
            self.aliases.push(aliases);
            sql += &match picks {
                Some(having) => {
                    format!(" WHERE ({selection}) AND ({})", self.having(having, &parts, &columns)?)
                }
                None => format!(" WHERE {selection}"),
            };
        } else if let Some(having) = picks {
            sql += &format!(" WHERE {}", self.having(having, &parts, &columns)?);
        }
        match &select.group_by {
            ast::GroupByExpr::Expressions(list, modifiers) if modifiers.is_empty() => {
                if !list.is_empty() {
                    let list: Result<Vec<String>, Failure> =
                        list.iter().map(|e| self.expression(e)).collect();
                    sql += &format!(" GROUP BY {}", list?.join(", "));
                }
            }
            _ => return Err(unsupported("GROUP BY ... WITH ROLLUP")),
        }
        if let Some(having) = select.having.as_ref().filter(|_| picks.is_none()) {
            sql += &format!(" HAVING {}", self.having(having, &parts, &columns)?);
        }
        Ok((sql, columns))
    }

    /// The list's expressions and columns.
    fn projection(&mut self, items: &[SelectItem]) -> Result<(Vec<String>, Vec<Out>), Failure> {
        let (mut list, mut columns) = (Vec::new(), Vec::new());
        for item in items {
            let (expression, name) = match item {
                SelectItem::UnnamedExpr(expression) => (expression, None),
                SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias.value.clone())),
                SelectItem::Wildcard(_) => {
                    self.star(None, &mut list, &mut columns)?;
                    continue;
                }
                SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let (_, table) = table_name(name)?;
                    self.star(Some(table), &mut list, &mut columns)?;
                    continue;
                }
                other => return Err(unsupported(&format!("{other}"))),
            };
            let (kind, column) = self.kind(expression);
            let name = name.unwrap_or_else(|| match expression {
                Expr::Identifier(ident) => ident.value.clone(),
                Expr::CompoundIdentifier(parts) => parts.last().map(|p| p.value.clone()).unwrap_or_default(),
                Expr::Value(v) => match &v.value {
                    ast::Value::SingleQuotedString(s) | ast::Value::DoubleQuotedString(s) => s.clone(),
                    other => other.to_string(),
                },
                other => other.to_string(),
            });
            let sql = self.expression(expression)?;
            list.push(sql);
            let column = column.map(|column| Column { name: name.clone(), ..column });
            columns.push(Out { name, kind, column });
        }
        Ok((list, columns))
    }

    fn star(&self, of: Option<&str>, list: &mut Vec<String>, columns: &mut Vec<Out>) -> Result<(), Failure> {
        let mut found = false;
        for source in self.scopes.last().into_iter().flatten() {
            if of.is_some_and(|name| !name.eq_ignore_ascii_case(&source.alias)) {
                continue;
            }
            found = true;
            for column in &source.columns {
                if of.is_none() && source.merged.iter().any(|m| m.eq_ignore_ascii_case(&column.name)) {
                    continue;
                }
                list.push(format!("{}.{}", quote(&source.alias), quote(&column.name)));
                columns.push(column.clone());
            }
        }
        match (found, of) {
            (true, _) => Ok(()),
            (false, Some(name)) => Err(Failure::new(1051, "42S02", format!("Unknown table '{name}'"))),
            (false, None) => Err(Failure::new(1096, "HY000", "No tables used".to_owned())),
        }
    }

    fn from(&mut self, from: &[ast::TableWithJoins]) -> Emitted {
        let real: Vec<_> = from
            .iter()
            .filter(|t| !matches!(&t.relation, TableFactor::Table { name, .. } if name.to_string().eq_ignore_ascii_case("dual")))
            .collect();
        if real.is_empty() {
            return Ok(String::new());
        }
        let parts: Result<Vec<String>, Failure> = real.into_iter().map(|t| self.joined(t)).collect();
        Ok(format!(" FROM {}", parts?.join(", ")))
    }

    fn joined(&mut self, table: &ast::TableWithJoins) -> Emitted {
        use ast::JoinOperator as J;
        let mut sql = self.factor(&table.relation)?;
        for join in &table.joins {
            let (word, constraint) = match &join.join_operator {
                J::Join(c) | J::Inner(c) | J::StraightJoin(c) => ("JOIN", c),
                J::Left(c) | J::LeftOuter(c) => ("LEFT JOIN", c),
                J::Right(c) | J::RightOuter(c) => ("RIGHT JOIN", c),
                J::CrossJoin(c) => ("CROSS JOIN", c),
                _ => return Err(unsupported(&format!("{join}"))),
            };
            let right = self.factor(&join.relation)?;
            sql += &format!(" {word} {right}");
            match constraint {
                ast::JoinConstraint::On(on) => sql += &format!(" ON {}", self.expression(on)?),
                ast::JoinConstraint::Using(names) => {
                    let mut list = Vec::new();
                    for name in names {
                        list.push(quote(table_name(name)?.1));
                    }
                    if let Some(source) = self.scopes.last_mut().and_then(|s| s.last_mut()) {
                        source.merged = names
                            .iter()
                            .filter_map(|n| table_name(n).ok())
                            .map(|(_, n)| n.to_owned())
                            .collect();
                    }
                    sql += &format!(" USING ({})", list.join(", "));
                }
                ast::JoinConstraint::None => {}
                _ => return Err(unsupported("NATURAL JOIN")),
            }
        }
        Ok(sql)
    }

    fn factor(&mut self, factor: &TableFactor) -> Emitted {
        let (sql, alias, columns) = match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let (database, table) = table_name(name)?;
                let alias = alias.as_ref().map_or(table, |a| a.name.value.as_str()).to_owned();
                let cte =
                    self.ctes.iter().rev().find(|(n, _)| database.is_none() && n.eq_ignore_ascii_case(table));
                if let Some((name, columns)) = cte {
                    (quote(name), alias, columns.clone())
                } else if database.is_some_and(|d| d.eq_ignore_ascii_case("information_schema")) {
                    let (names, rows) = self.tables.information(table)?;
                    let out = |n: &&str| Out { name: (*n).to_owned(), kind: None, column: None };
                    (values(&names, &rows), alias, names.iter().map(out).collect())
                } else {
                    let table = self.tables.table(database, table)?;
                    (quote(&table.stored()), alias.clone(), outs(&table, &alias))
                }
            }
            TableFactor::Derived { lateral: false, subquery, alias: Some(alias), .. } => {
                let (sql, columns) = self.query(subquery)?;
                (format!("({sql})"), alias.name.value.clone(), columns)
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                return Ok(format!("({})", self.joined(table_with_joins)?));
            }
            other => return Err(unsupported(&format!("{other}"))),
        };
        let sql = format!("{sql} AS {}", quote(&alias));
        if let Some(scope) = self.scopes.last_mut() {
            scope.push(Source { alias, columns, merged: Vec::new() });
        }
        Ok(sql)
    }

    fn find(&self, table: Option<&str>, name: &str) -> Result<Option<(&Source, &Out)>, Failure> {
        for scope in self.scopes.iter().rev() {
            let mut found = None;
            for source in scope.iter().filter(|s| table.is_none_or(|t| t.eq_ignore_ascii_case(&s.alias))) {
                let merged = table.is_none() && source.merged.iter().any(|m| m.eq_ignore_ascii_case(name));
                let column = source.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name));
                if let Some(column) = column.filter(|_| !merged) {
                    if found.is_some() {
                        return Err(Failure::new(
                            1052,
                            "23000",
                            format!("Column '{name}' in field list is ambiguous"),
                        ));
                    }
                    found = Some((source, column));
                }
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn column(&self, parts: &[ast::Ident]) -> Emitted {
        let names: Vec<&str> = parts.iter().map(|p| p.value.as_str()).collect();
        let whole = names.join(".");
        if whole.starts_with('@') {
            let fact = self.tables.fact(&whole);
            return fact.map(|cell| show(&cell)).ok_or_else(|| {
                let name = whole.trim_start_matches('@');
                Failure::new(1193, "HY000", format!("Unknown system variable '{name}'"))
            });
        }
        let (table, name) = match names.as_slice() {
            [name] => (None, *name),
            [.., table, name] => (Some(*table), *name),
            [] => (None, ""),
        };
        if let Some(alias) = &self.duplicate
            && table.is_some_and(|t| t.eq_ignore_ascii_case(alias))
        {
            return Ok(format!("excluded.{}", quote(name)));
        }
        let aliased = self
            .aliases
            .last()
            .into_iter()
            .flatten()
            .find(|a| table.is_none() && a.eq_ignore_ascii_case(name));
        if let (Some(alias), true) = (aliased, self.aliases_first) {
            let behind = self.behind.iter().find(|(name, _)| name.eq_ignore_ascii_case(alias));
            if let Some((_, sql)) = behind {
                return Ok(format!("({sql})"));
            }
            return Ok(quote(alias));
        }
        if let Some((source, column)) = self.find(table, name)? {
            return Ok(format!("{}.{}", quote(&source.alias), quote(&column.name)));
        }
        match aliased {
            Some(alias) => Ok(quote(alias)),
            None => Err(Failure::new(1054, "42S22", format!("Unknown column '{whole}' in 'field list'"))),
        }
    }

    /// An expression that is compared with `with`: brought to that column's form where SQLite
    /// would compare texts, to bytes where one of them is bytes.
    fn compared(&mut self, expression: &Expr, with: &Expr) -> Emitted {
        let sql = self.expression(expression)?;
        let ((kind, _), (own, column)) = (self.kind(with), self.kind(expression));
        if matches!(kind, Some(ColumnType::Bytes { .. })) && matches!(own, Some(ColumnType::Text { .. })) {
            return Ok(format!("CAST({sql} AS BLOB)"));
        }
        let stored = column.is_some_and(|c| !c.org_name.is_empty());
        match kind.filter(|k| k.coerces() && !stored) {
            Some(kind) => Ok(format!("fb_like({sql}, {})", code(&kind))),
            None => Ok(sql),
        }
    }

    /// Whether texts are told apart by case: an explicit collation decides, else bytes and binary
    /// columns do, and the connection's collation does not.
    fn tells_case(&self, left: &Expr, right: &Expr) -> bool {
        let explicit = explicit_collation(left).or_else(|| explicit_collation(right));
        let binary = |e: &Expr| {
            matches!(
                self.kind(e).0,
                Some(ColumnType::Bytes { .. } | ColumnType::Text { binary: true, .. } | ColumnType::Json)
            )
        };
        explicit.unwrap_or_else(|| binary(left) || binary(right))
    }

    /// A comparison of texts of which none is a column needs its collation said.
    fn collated(&self, left: &Expr, right: &Expr) -> &'static str {
        let known = |e: &Expr| self.kind(e);
        let text = |e: &Expr| matches!(known(e).0, Some(ColumnType::Text { .. }));
        let stored = |e: &Expr| known(e).1.is_some_and(|c| !c.org_name.is_empty());
        let plain = (text(left) || text(right)) && !stored(left) && !stored(right);
        if plain && !self.tells_case(left, right) { " COLLATE NOCASE" } else { "" }
    }

    fn binary(&mut self, left: &Expr, op: &B, right: &Expr) -> Emitted {
        let word = match op {
            B::Eq => "=",
            B::NotEq => "<>",
            B::Lt => "<",
            B::LtEq => "<=",
            B::Gt => ">",
            B::GtEq => ">=",
            B::Spaceship => "IS",
            _ => "",
        };
        if !word.is_empty() {
            let a = self.compared(left, right)?;
            let b = self.compared(right, left)?;
            return Ok(format!("({a} {word} {b}{})", self.collated(left, right)));
        }
        if matches!(op, B::Regexp) {
            return self.matches(left, right);
        }
        let (a, b) = (self.expression(left)?, self.expression(right)?);
        let word = match op {
            B::And => "AND",
            B::Or | B::StringConcat => "OR",
            B::Plus => "+",
            B::Minus => "-",
            B::Multiply => "*",
            B::BitwiseAnd => "&",
            B::BitwiseOr => "|",
            B::PGBitwiseShiftLeft => "<<",
            B::PGBitwiseShiftRight => ">>",
            B::Divide => return Ok(format!("(CAST({a} AS REAL) / {b})")),
            B::MyIntegerDivide | B::DuckIntegerDivide => return Ok(format!("CAST({a} / {b} AS INTEGER)")),
            B::Modulo => return Ok(format!("fb('mod', {a}, {b})")),
            B::Xor => return Ok(format!("(({a} <> 0) <> ({b} <> 0))")),
            B::Arrow => return Ok(format!("({a} -> {b})")),
            B::LongArrow => return Ok(format!("({a} ->> {b})")),
            other => return Err(unsupported(&format!("the operator {other}"))),
        };
        // A date moved by an interval.
        if let (B::Plus | B::Minus, Expr::Interval(interval)) = (op, right) {
            return self.shifted(&a, interval, matches!(op, B::Minus));
        }
        Ok(format!("({a} {word} {b})"))
    }

    /// `REGEXP`.
    fn matches(&mut self, text: &Expr, pattern: &Expr) -> Emitted {
        let flag = if self.tells_case(text, pattern) { "'c'" } else { "'i'" };
        Ok(format!("fb('regexp_like', {}, {}, {flag})", self.expression(text)?, self.expression(pattern)?))
    }

    fn shifted(&mut self, date: &str, interval: &ast::Interval, back: bool) -> Emitted {
        let unit = interval
            .leading_field
            .as_ref()
            .map(|f| f.to_string().to_lowercase())
            .unwrap_or_else(|| "day".into());
        let amount = self.expression(&interval.value)?;
        let sign = if back { "-" } else { "" };
        Ok(format!("fb('date_shift', {date}, {sign}({amount}), {})", literal(unit.trim_end_matches('s'))))
    }

    /// An expression.
    ///
    /// # Errors
    /// What MySQL says of it, or what is not translated.
    pub fn expression(&mut self, expression: &Expr) -> Emitted {
        Ok(match expression {
            Expr::Identifier(name) => self.column(std::slice::from_ref(name))?,
            Expr::CompoundIdentifier(parts) => self.column(parts)?,
            Expr::Value(value) => self.value(&value.value)?,
            Expr::Nested(inner) => format!("({})", self.expression(inner)?),
            Expr::BinaryOp { left, op, right } if !matches!(**right, Expr::Interval(_)) => {
                self.binary(left, op, right)?
            }
            Expr::BinaryOp { left, op, right } => {
                let date = self.expression(left)?;
                match &**right {
                    Expr::Interval(interval) => self.shifted(&date, interval, matches!(op, B::Minus))?,
                    _ => return Err(unsupported("an interval")),
                }
            }
            Expr::UnaryOp { op, expr } => {
                let inner = self.expression(expr)?;
                match op {
                    ast::UnaryOperator::Not | ast::UnaryOperator::BangNot => format!("(NOT {inner})"),
                    ast::UnaryOperator::Minus => format!("(- {inner})"),
                    ast::UnaryOperator::Plus => inner,
                    ast::UnaryOperator::BitwiseNot => format!("(~ {inner})"),
                    other => return Err(unsupported(&format!("the operator {other}"))),
                }
            }
            Expr::IsNull(e) => format!("({} IS NULL)", self.expression(e)?),
            Expr::IsNotNull(e) => format!("({} IS NOT NULL)", self.expression(e)?),
            Expr::IsTrue(e) => format!("({} IS TRUE)", self.expression(e)?),
            Expr::IsNotTrue(e) => format!("({} IS NOT TRUE)", self.expression(e)?),
            Expr::IsFalse(e) => format!("({} IS FALSE)", self.expression(e)?),
            Expr::IsNotFalse(e) => format!("({} IS NOT FALSE)", self.expression(e)?),
            Expr::Between { expr, negated, low, high } => {
                let inner = self.expression(expr)?;
                let (low, high) = (self.compared(low, expr)?, self.compared(high, expr)?);
                format!("({inner} {}BETWEEN {low} AND {high})", not(*negated))
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                let cased = u8::from(self.tells_case(expr, pattern));
                let (inner, pattern) = (self.expression(expr)?, self.expression(pattern)?);
                let escape = match escape_char {
                    Some(escape) => self.expression(escape)?,
                    None => "'\\'".to_owned(),
                };
                format!("({}fb('like', {inner}, {pattern}, {escape}, {cased}))", not(*negated))
            }
            Expr::RLike { negated, expr, pattern, .. } => {
                format!("({}{})", not(*negated), self.matches(expr, pattern)?)
            }
            Expr::In { expr, target, negated, .. } => {
                let inner = self.expression(expr)?;
                let list = match target {
                    ast::InTarget::List(list) => {
                        let list: Result<Vec<String>, Failure> =
                            list.iter().map(|e| self.compared(e, expr)).collect();
                        list?.join(", ")
                    }
                    ast::InTarget::Subquery(query) => self.query(query)?.0,
                    _ => return Err(unsupported("IN over a table")),
                };
                format!("({inner} {}IN ({list}))", not(*negated))
            }
            Expr::Exists { subquery, negated } => {
                format!("({}EXISTS ({}))", not(*negated), self.query(subquery)?.0)
            }
            Expr::Subquery(query) => format!("({})", self.query(query)?.0),
            Expr::Tuple(list) => {
                let list: Result<Vec<String>, Failure> = list.iter().map(|e| self.expression(e)).collect();
                format!("({})", list?.join(", "))
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let mut sql = "CASE".to_owned();
                if let Some(operand) = operand {
                    sql += &format!(" {}", self.expression(operand)?);
                }
                for when in conditions {
                    let condition = self.expression(&when.condition)?;
                    sql += &format!(" WHEN {condition} THEN {}", self.expression(&when.result)?);
                }
                if let Some(otherwise) = else_result {
                    sql += &format!(" ELSE {}", self.expression(otherwise)?);
                }
                sql + " END"
            }
            Expr::Cast { expr, data_type, .. } => {
                let inner = self.expression(expr)?;
                cast(&inner, data_type)?
            }
            Expr::Convert { expr, data_type: Some(data_type), .. } => {
                let inner = self.expression(expr)?;
                cast(&inner, data_type)?
            }
            Expr::Convert { expr, data_type: None, .. } => self.expression(expr)?,
            Expr::Collate { expr, collation } => {
                let word = if tells_case(&collation.to_string()) { "BINARY" } else { "NOCASE" };
                format!("({} COLLATE {word})", self.expression(expr)?)
            }
            Expr::Prefixed { value, .. } => self.expression(value)?,
            Expr::Ceil { expr, .. } => format!("fb('ceil', {})", self.expression(expr)?),
            Expr::Floor { expr, .. } => format!("fb('floor', {})", self.expression(expr)?),
            Expr::Position { expr, r#in } => {
                let needle = self.expression(expr)?;
                format!("fb('locate', {needle}, {})", self.expression(r#in)?)
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let mut parts = vec![self.expression(expr)?];
                for part in [substring_from, substring_for].into_iter().flatten() {
                    parts.push(self.expression(part)?);
                }
                format!("substr({})", parts.join(", "))
            }
            Expr::Trim { trim_where, trim_what, expr, .. } => {
                let what = trim_what.as_ref().map(|w| self.expression(w)).transpose()?;
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "trim",
                };
                let inner = self.expression(expr)?;
                format!("{name}({inner}{})", what.map(|w| format!(", {w}")).unwrap_or_default())
            }
            Expr::Extract { field, expr, .. } => {
                format!("fb({}, {})", literal(&field.to_string().to_lowercase()), self.expression(expr)?)
            }
            Expr::TypedString(typed) => {
                typed.value.value.clone().into_string().map(|s| literal(&s)).unwrap_or_else(|| "NULL".into())
            }
            Expr::Function(function) => self.function(function)?,
            other => return Err(unsupported(&format!("the expression {other}"))),
        })
    }

    fn value(&mut self, value: &ast::Value) -> Emitted {
        use ast::Value as V;
        Ok(match value {
            V::Number(text, _) => text.to_string(),
            V::SingleQuotedString(s)
            | V::DoubleQuotedString(s)
            | V::NationalStringLiteral(s)
            | V::EscapedStringLiteral(s) => literal(s),
            V::HexStringLiteral(hex) => format!("x'{hex}'"),
            // `b'101'`: bits, a number wherever one is wanted.
            V::SingleQuotedByteStringLiteral(bits) | V::DoubleQuotedByteStringLiteral(bits) => {
                let bits = if bits.is_empty() { "0" } else { bits.as_str() };
                i64::from_str_radix(bits, 2)
                    .map_err(|_| unsupported(&format!("the literal {value}")))?
                    .to_string()
            }
            V::Boolean(b) => u8::from(*b).to_string(),
            V::Null => "NULL".to_owned(),
            V::Placeholder(_) => {
                self.placeholders += 1;
                format!("?{}", self.placeholders)
            }
            other => return Err(unsupported(&format!("the literal {other}"))),
        })
    }

    fn function(&mut self, function: &ast::Function) -> Emitted {
        let name = function.name.to_string().to_lowercase().replace('`', "");
        let (mut args, mut distinct, mut separator) = (Vec::new(), false, None);
        let mut raw: Vec<&Expr> = Vec::new();
        if let ast::FunctionArguments::List(list) = &function.args {
            distinct = matches!(list.duplicate_treatment, Some(ast::DuplicateTreatment::Distinct));
            for arg in &list.args {
                match arg {
                    ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)) => raw.push(e),
                    ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard) => args.push("*".to_owned()),
                    other => return Err(unsupported(&format!("the argument {other}"))),
                }
            }
            for clause in &list.clauses {
                match clause {
                    ast::FunctionArgumentClause::Separator(text) => {
                        separator = text.value.clone().into_string()
                    }
                    ast::FunctionArgumentClause::OrderBy(_) if name == "group_concat" => {}
                    other => return Err(unsupported(&format!("{other} in a function"))),
                }
            }
        }
        if function.over.is_some() {
            return Err(unsupported("window functions"));
        }
        let call = format!("{name}()");
        if raw.is_empty()
            && args.is_empty()
            && let Some(fact) = self.tables.fact(&call)
        {
            return Ok(show(&fact));
        }
        // These take names or intervals, not values.
        match (name.as_str(), raw.as_slice()) {
            ("values", [Expr::Identifier(column)]) => {
                return Ok(format!("excluded.{}", quote(&column.value)));
            }
            ("date_add" | "date_sub" | "adddate" | "subdate", [date, Expr::Interval(interval)]) => {
                let date = self.expression(date)?;
                return self.shifted(&date, interval, name.contains("sub"));
            }
            ("timestampdiff", [unit, from, to]) => {
                let (from, to) = (self.expression(from)?, self.expression(to)?);
                return Ok(format!(
                    "fb('timestampdiff', {}, {from}, {to})",
                    literal(&unit.to_string().to_lowercase())
                ));
            }
            _ => {}
        }
        for expression in &raw {
            args.push(self.expression(expression)?);
        }
        let list = args.join(", ");
        let digits = if args.is_empty() { "0".to_owned() } else { list.clone() };
        Ok(match name.as_str() {
            "now" | "current_timestamp" | "localtime" | "localtimestamp" | "sysdate" | "utc_timestamp" => {
                format!("fb_now({digits})")
            }
            "curdate" | "current_date" | "utc_date" => "substr(fb_now(0), 1, 10)".to_owned(),
            "curtime" | "current_time" | "utc_time" => format!("substr(fb_now({digits}), 12)"),
            "group_concat" => {
                // SQLite takes DISTINCT only without a separator of its own; the comma is both defaults.
                match (distinct, separator) {
                    (true, Some(s)) if s != "," => {
                        return Err(unsupported("GROUP_CONCAT(DISTINCT ... SEPARATOR ...)"));
                    }
                    (true, _) => format!("group_concat(DISTINCT {list})"),
                    (false, s) => {
                        format!("group_concat({list}, {})", literal(&s.unwrap_or_else(|| ",".into())))
                    }
                }
            }
            "count" | "sum" | "avg" | "min" | "max" => {
                format!("{name}({}{list})", if distinct { "DISTINCT " } else { "" })
            }
            "ifnull" | "coalesce" | "nullif" | "abs" | "round" | "replace" | "hex" | "sign"
            | "json_extract" | "json_object" | "json_array" | "json_valid" | "json_set"
            | "json_array_length" | "substr" | "ltrim" | "rtrim" | "char" => format!("{name}({list})"),
            "substring" | "mid" => format!("substr({list})"),
            "lower" | "lcase" => format!("fb('str_lower', {list})"),
            "upper" | "ucase" => format!("fb('str_upper', {list})"),
            "json_length" => format!("json_array_length({list})"),
            known if functions::KNOWN.contains(&known) => {
                format!("fb({}{}{list})", literal(known), if list.is_empty() { "" } else { ", " })
            }
            other => return Err(unsupported(&format!("the function {}", other.to_uppercase()))),
        })
    }

    /// The type that an expression has before any row is seen.
    fn kind(&self, expression: &Expr) -> (Option<ColumnType>, Option<Column>) {
        let plain = |kind| (Some(kind), None);
        match expression {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                let parts: Vec<&str> = match expression {
                    Expr::CompoundIdentifier(parts) => parts.iter().map(|p| p.value.as_str()).collect(),
                    Expr::Identifier(name) => vec![name.value.as_str()],
                    _ => Vec::new(),
                };
                let (name, table) = match parts.as_slice() {
                    [name] => (*name, None),
                    [.., table, name] => (*name, Some(*table)),
                    [] => return (None, None),
                };
                match self.find(table, name) {
                    Ok(Some((_, out))) => (out.kind.clone(), out.column.clone()),
                    _ => (None, None),
                }
            }
            Expr::Nested(inner) => self.kind(inner),
            Expr::Collate { expr, .. } | Expr::Prefixed { value: expr, .. } => (self.kind(expr).0, None),
            Expr::Value(value) => match &value.value {
                ast::Value::Number(text, _) => match text.to_string().split_once('.') {
                    None => plain(int()),
                    Some((_, fraction)) => {
                        plain(ColumnType::Decimal { digits: 15, scale: fraction.len().min(15) as u8 })
                    }
                },
                ast::Value::Boolean(_) => plain(int()),
                ast::Value::SingleQuotedString(_) | ast::Value::DoubleQuotedString(_) => plain(text()),
                _ => (None, None),
            },
            Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::In { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::Exists { .. } => plain(int()),
            Expr::BinaryOp { left, op, right } => (self.arithmetic(left, op, right), None),
            Expr::UnaryOp { expr, op: ast::UnaryOperator::Minus } => (self.kind(expr).0, None),
            Expr::Case { conditions, .. } => {
                conditions.first().map_or((None, None), |w| (self.kind(&w.result).0, None))
            }
            Expr::Cast { data_type, .. } | Expr::Convert { data_type: Some(data_type), .. } => {
                (cast_to(data_type).ok(), None)
            }
            Expr::Subquery(_) => (None, None),
            Expr::Function(function) => (self.function_kind(function), None),
            Expr::Trim { .. } | Expr::Substring { .. } => plain(text()),
            _ => (None, None),
        }
    }

    fn arithmetic(&self, left: &Expr, op: &B, right: &Expr) -> Option<ColumnType> {
        if !matches!(op, B::Plus | B::Minus | B::Multiply | B::Divide | B::MyIntegerDivide | B::Modulo) {
            return (!matches!(op, B::Arrow | B::LongArrow)).then(int);
        }
        if matches!(right, Expr::Interval(_)) {
            return None;
        }
        let scale = |kind: &ColumnType| match kind {
            ColumnType::Int { .. } | ColumnType::Bit(_) => Some(0),
            ColumnType::Decimal { scale, .. } => Some(*scale),
            _ => None,
        };
        let (a, b) = (self.kind(left).0?, self.kind(right).0?);
        let both = scale(&a).zip(scale(&b));
        let decimal = |scale: u8| ColumnType::Decimal { digits: 15, scale };
        Some(match (both, op) {
            (None, _) => ColumnType::Double,
            (Some(_), B::MyIntegerDivide) => int(),
            (Some((a, _)), B::Divide) => decimal(a + 4),
            (Some((0, 0)), _) => int(),
            (Some((a, b)), B::Multiply) => decimal(a + b),
            (Some((a, b)), _) => decimal(a.max(b)),
        })
    }

    fn function_kind(&self, function: &ast::Function) -> Option<ColumnType> {
        let name = function.name.to_string().to_lowercase();
        let args: Vec<&Expr> = match &function.args {
            ast::FunctionArguments::List(list) => list
                .args
                .iter()
                .filter_map(|a| match a {
                    ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)) => Some(e),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        let of = |at: usize| args.get(at).and_then(|e| self.kind(e).0);
        let digits = match args.first() {
            Some(Expr::Value(v)) => v.value.to_string().parse().unwrap_or(0),
            _ => 0,
        };
        Some(match name.as_str() {
            "count" | "length" | "char_length" | "locate" | "instr" | "year" | "month" | "day" | "hour"
            | "minute" | "second" | "datediff" | "timestampdiff" | "isnull" | "last_insert_id"
            | "row_count" | "found_rows" | "connection_id" | "dayofweek" | "weekday" | "dayofyear"
            | "field" | "sign" | "get_lock" | "release_lock" | "release_all_locks" | "is_free_lock"
            | "is_used_lock" | "regexp_like" => int(),
            "sum" | "avg" => match of(0)? {
                ColumnType::Int { .. } if name == "sum" => ColumnType::Decimal { digits: 15, scale: 0 },
                ColumnType::Int { .. } => ColumnType::Decimal { digits: 15, scale: 4 },
                ColumnType::Decimal { scale, .. } => {
                    ColumnType::Decimal { digits: 15, scale: scale + if name == "avg" { 4 } else { 0 } }
                }
                _ => ColumnType::Double,
            },
            "min" | "max" | "ifnull" | "coalesce" | "nullif" | "greatest" | "least" | "any_value" | "abs"
            | "values" => of(0).or_else(|| of(1))?,
            "if" => of(1).or_else(|| of(2))?,
            "now" | "current_timestamp" | "sysdate" | "utc_timestamp" | "localtime" | "localtimestamp" => {
                ColumnType::DateTime { digits, stamp: false }
            }
            "curdate" | "current_date" | "date" | "last_day" => ColumnType::Date,
            "rand" | "sqrt" | "pow" | "power" | "pi" | "exp" | "ln" => ColumnType::Double,
            "concat" | "concat_ws" | "upper" | "lower" | "left" | "right" | "substring" | "replace"
            | "trim" | "date_format" | "group_concat" | "uuid" | "hex" | "database" | "version" | "user"
            | "md5" | "sha1" | "sha2" | "lpad" | "rpad" => text(),
            _ => return None,
        })
    }

    /// Opens a scope with one table, for writes.
    pub fn enter(&mut self, table: &TableDef, alias: &str) {
        let columns = outs(table, alias);
        self.scopes.push(vec![Source { alias: alias.to_owned(), columns, merged: Vec::new() }]);
        self.aliases.push(Vec::new());
    }

    /// The alias of the new row in ON DUPLICATE KEY UPDATE.
    pub fn new_row(&mut self, alias: Option<String>) {
        self.duplicate = alias;
    }

    /// A value as it goes into a column.
    ///
    /// # Errors
    /// As [`Emitter::expression`].
    pub fn stored(&mut self, expression: &Expr, column: &super::schema::ColumnDef) -> Emitted {
        if let Expr::Identifier(word) = expression
            && word.value.eq_ignore_ascii_case("default")
            && word.quote_style.is_none()
        {
            return Ok(column.default.clone().unwrap_or_else(|| "NULL".to_owned()));
        }
        let sql = self.expression(expression)?;
        let stored = store(&sql, column);
        // Zero asks for the next number, as NULL does.
        Ok(if column.auto { format!("nullif({stored}, 0)") } else { stored })
    }

    /// An ORDER BY and LIMIT of a write, to follow its WHERE.
    ///
    /// # Errors
    /// As [`Emitter::expression`].
    pub fn tail(&mut self, order: &[ast::OrderByExpr], limit: Option<&Expr>) -> Emitted {
        let mut sql = String::new();
        if !order.is_empty() {
            sql += &format!(" ORDER BY {}", self.order_list(order)?);
        }
        if let Some(limit) = limit {
            sql += &format!(" LIMIT {}", self.expression(limit)?);
        }
        Ok(sql)
    }
}

/// A SQL value brought into a column's form.
pub fn store(sql: &str, column: &super::schema::ColumnDef) -> String {
    format!("fb_store({sql}, {}, {})", code(&column.kind), literal(&column.name))
}

fn code(kind: &ColumnType) -> String {
    literal(&serde_json::to_string(kind).unwrap_or_default())
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

/// A cell as a SQL literal.
pub fn show(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Integer(n) => n.to_string(),
        Cell::Real(n) => format!("{n:?}"),
        Cell::Text(text) => literal(text),
        Cell::Blob(bytes) => format!("x'{}'", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

/// Rows as a table. (A compound select would have a limit of 500 of them.)
pub fn values(names: &[&str], rows: &[Vec<Cell>]) -> String {
    let empty = [vec![Cell::Null; names.len()]];
    let (shown, none) = if rows.is_empty() { (&empty[..], " WHERE 0") } else { (rows, "") };
    let list: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(at, name)| format!("column{} COLLATE NOCASE AS {}", at + 1, quote(name)))
        .collect();
    let rows: Vec<String> = shown
        .iter()
        .map(|row| format!("({})", row.iter().map(show).collect::<Vec<_>>().join(", ")))
        .collect();
    format!("(SELECT {} FROM (VALUES {}){none})", list.join(", "), rows.join(", "))
}

/// A condition over rows that have these columns, and stand under `alias`.
///
/// # Errors
/// As [`Emitter::expression`].
pub fn condition(tables: &dyn Tables, names: &[&str], alias: &str, condition: &Expr) -> Emitted {
    let mut emitter = Emitter::new(tables);
    let columns =
        names.iter().map(|name| Out { name: (*name).to_owned(), kind: None, column: None }).collect();
    emitter.scopes.push(vec![Source { alias: alias.to_owned(), columns, merged: Vec::new() }]);
    emitter.aliases.push(Vec::new());
    emitter.expression(condition)
}

/// Whether a collation tells case.
pub fn tells_case(collation: &str) -> bool {
    let name = collation.trim_matches(['`', '\'', '"']).to_lowercase();
    name == "binary" || name.ends_with("_bin") || name.ends_with("_cs")
}

/// What a `COLLATE` in the expression says about case.
fn explicit_collation(expression: &Expr) -> Option<bool> {
    match expression {
        Expr::Collate { collation, .. } => Some(tells_case(&collation.to_string())),
        Expr::Nested(inner) => explicit_collation(inner),
        _ => None,
    }
}

/// The type that a cast makes: without a length it cuts nothing.
fn cast_to(declared: &ast::DataType) -> Result<ColumnType, Failure> {
    use ast::DataType as D;
    Ok(match declared {
        D::Binary(None) => ColumnType::Bytes { max: 65_535, long: false, fixed: false },
        D::Char(None) | D::Character(None) => text(),
        other => ColumnType::declared(other)?,
    })
}

fn cast(inner: &str, to: &ast::DataType) -> Emitted {
    Ok(match cast_to(to)? {
        ColumnType::Int { .. } | ColumnType::Bit(_) | ColumnType::Year => {
            format!("CAST(round({inner}) AS INTEGER)")
        }
        ColumnType::Decimal { scale, .. } => format!("round({inner}, {scale})"),
        ColumnType::Float | ColumnType::Double => format!("CAST({inner} AS REAL)"),
        ColumnType::Bytes { .. } => format!("CAST({inner} AS BLOB)"),
        ColumnType::Json => format!("json({inner})"),
        kind @ (ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Time { .. }) => {
            format!("fb_like({inner}, {})", code(&kind))
        }
        _ => format!("CAST({inner} AS TEXT)"),
    })
}

/// The wire column of a result whose type the rows decide.
pub fn by_value(name: &str, sample: Option<&faultbox_bundle_format::Value>) -> Column {
    use faultbox_bundle_format::Value;
    match sample {
        Some(Value::Int(_)) => int().column(name),
        Some(Value::Float(_)) => ColumnType::Double.column(name),
        Some(Value::Bytes(_)) => ColumnType::Bytes { max: 65_535, long: true, fixed: false }.column(name),
        _ => Column::plain(name, types::VAR_STRING),
    }
}

/// Whether a select computes over all of its rows, by its list and its HAVING.
fn aggregates(list: &str, having: &Expr) -> bool {
    let words = format!("{list} {having}").to_lowercase();
    ["count(", "sum(", "avg(", "min(", "max(", "group_concat("].iter().any(|name| words.contains(name))
}
