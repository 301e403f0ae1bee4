//! Declarations: CREATE, ALTER and DROP of tables and indexes.
//!
//! Contract: pure; gives the table as it is to be. Tables are altered by making them anew.
//! Not modelled: what [`super::schema`] does not; a check that a changed column declares.

use super::emit::{table_name, tells_case};
use super::schema::{Check, ColumnDef, ColumnType, Foreign, Key, TableDef, literal, now_words};
use super::session::{Failure, unsupported};
use sqlparser::ast::{self, AlterTableOperation as Op, ColumnOption, Expr, TableConstraint};

/// A table from its declaration.
///
/// # Errors
/// What is not kept.
pub fn table(create: &ast::CreateTable, database: &str) -> Result<TableDef, Failure> {
    let (_, name) = table_name(&create.name)?;
    let mut table = TableDef {
        database: database.to_owned(),
        name: name.to_owned(),
        columns: Vec::new(),
        keys: Vec::new(),
        foreign: Vec::new(),
        checks: Vec::new(),
        comment: String::new(),
        first_id: None,
    };
    for declared in &create.columns {
        let column = column(
            &mut table,
            &declared.name.value,
            &declared.data_type,
            declared.options.iter().map(|o| &o.option),
        )?;
        table.columns.push(column);
    }
    for constraint in &create.constraints {
        constrain(&mut table, constraint)?;
    }
    for declared in &create.columns {
        for option in &declared.options {
            if let ColumnOption::Check(constraint) = &option.option {
                check(&mut table, constraint)?;
            }
        }
    }
    table.keys.sort_by_key(|key| key.name != "PRIMARY");
    for primary in table.primary().to_vec() {
        if let Some(column) = table.columns.iter_mut().find(|c| c.name.eq_ignore_ascii_case(&primary)) {
            column.not_null = true;
        }
    }
    if let ast::CreateTableOptions::Plain(options) = &create.table_options {
        for option in options {
            match option {
                ast::SqlOption::KeyValue { key, value }
                    if key.to_string().eq_ignore_ascii_case("auto_increment") =>
                {
                    table.first_id = value.to_string().parse().ok();
                }
                ast::SqlOption::Comment(ast::CommentDef::WithEq(text) | ast::CommentDef::WithoutEq(text)) => {
                    table.comment.clone_from(text)
                }
                ast::SqlOption::KeyValue { key, value }
                    if key.to_string().to_lowercase().ends_with("collate") =>
                {
                    collate(&mut table, create, &value.to_string());
                }
                _ => {}
            }
        }
    }
    settle(&mut table);
    Ok(table)
}

/// Gives the table's collation to the columns that name none.
fn collate(table: &mut TableDef, create: &ast::CreateTable, collation: &str) {
    for (column, declared) in table.columns.iter_mut().zip(&create.columns) {
        let own = declared.options.iter().any(|o| matches!(o.option, ColumnOption::Collation(_)));
        if let (ColumnType::Text { binary, .. }, false) = (&mut column.kind, own) {
            *binary = tells_case(collation);
        }
    }
}

/// A foreign key has an index over its columns; where none serves, it gets one.
pub fn settle(table: &mut TableDef) {
    let foreign = table.foreign.clone();
    let needless = |key: &Key| {
        let others = || table.keys.iter().filter(|other| other.name != key.name);
        let mut wants = foreign.iter().filter(|foreign| serves(key, foreign)).peekable();
        // (One whose foreign key was dropped stays.)
        key.implied
            && wants.peek().is_some()
            && wants.all(|foreign| others().any(|other| serves(other, foreign)))
    };
    let kept: Vec<Key> = table.keys.iter().filter(|key| !needless(key)).cloned().collect();
    table.keys = kept;
    for foreign in table.foreign.clone() {
        if table.keys.iter().any(|key| serves(key, &foreign)) {
            continue;
        }
        let own = format!("{}_ibfk_", table.name);
        let base = match foreign.name.starts_with(&own) {
            true => foreign.columns.first().cloned().unwrap_or_default(),
            false => foreign.name.clone(),
        };
        let name = free_name(table, &base);
        table.keys.push(Key { name, columns: foreign.columns, unique: false, implied: true });
    }
}

fn serves(key: &Key, foreign: &Foreign) -> bool {
    key.columns.len() >= foreign.columns.len()
        && key.columns.iter().zip(&foreign.columns).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

fn free_name(table: &TableDef, base: &str) -> String {
    let taken = |name: &str| table.keys.iter().any(|k| k.name.eq_ignore_ascii_case(name));
    let mut free = base.to_owned();
    let mut number = 2;
    while taken(&free) {
        free = format!("{base}_{number}");
        number += 1;
    }
    free
}

struct NoTables;

impl super::emit::Tables for NoTables {
    fn table(&self, _: Option<&str>, name: &str) -> Result<std::sync::Arc<TableDef>, Failure> {
        Err(Failure::new(1146, "42S02", format!("Table '{name}' doesn't exist")))
    }
    fn information(&self, name: &str) -> Result<super::emit::Listing, Failure> {
        Err(unsupported(&format!("information_schema.{name}")))
    }
    fn fact(&self, _: &str) -> Option<rusqlite::types::Value> {
        None
    }
}

fn check(table: &mut TableDef, check: &ast::CheckConstraint) -> Result<(), Failure> {
    if check.enforced == Some(false) {
        return Ok(());
    }
    let names: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
    // SQLite wants the names bare.
    let sql = super::emit::condition(&NoTables, &names, "\u{1}", &check.expr)?.replace("\"\u{1}\".", "");
    let number = table.checks.len() + 1;
    let name =
        check.name.as_ref().map_or_else(|| format!("{}_chk_{number}", table.name), |n| n.value.clone());
    table.checks.push(Check { name, words: format!("({})", check.expr), sql });
    Ok(())
}

/// Whether a check speaks of a column: MySQL then refuses to drop or rename it.
fn unchecked(table: &TableDef, column: &str) -> Result<(), Failure> {
    let word = super::schema::quote(column).to_lowercase();
    match table.checks.iter().find(|check| check.sql.to_lowercase().contains(&word)) {
        None => Ok(()),
        Some(check) => Err(Failure::new(
            3959,
            "HY000",
            format!(
                "Check constraint '{}' uses column '{column}', hence column cannot be dropped or renamed.",
                check.name
            ),
        )),
    }
}

fn digits_of(expression: &Expr) -> Option<u8> {
    let words = expression.to_string().to_lowercase();
    let name = words.split('(').next().unwrap_or_default();
    if !matches!(name, "current_timestamp" | "now" | "localtime" | "localtimestamp") {
        return None;
    }
    let inside = words.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
    Some(inside.trim().parse().unwrap_or(0))
}

/// A default: SQLite's expression and MySQL's words, which are none for NULL.
fn default(expression: &Expr, kind: &ColumnType) -> Result<(String, Option<String>), Failure> {
    let words = expression.to_string();
    if let Some(digits) = digits_of(expression) {
        return Ok((format!("fb_now({digits})"), Some(now_words(digits))));
    }
    let computed = || Some(format!("({})", words.to_lowercase()));
    let text = match expression {
        Expr::Value(value) => match &value.value {
            ast::Value::Null => return Ok(("NULL".to_owned(), None)),
            ast::Value::Boolean(b) => u8::from(*b).to_string(),
            ast::Value::Number(text, _) => text.to_string(),
            ast::Value::SingleQuotedByteStringLiteral(bits) => i64::from_str_radix(bits, 2)
                .map_err(|_| unsupported(&format!("the default {words}")))?
                .to_string(),
            other => {
                other.clone().into_string().ok_or_else(|| unsupported(&format!("the default {words}")))?
            }
        },
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => format!("-{expr}"),
        Expr::Nested(inner) => return default(inner, kind),
        Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("uuid") => {
            return Ok(("fb('uuid')".to_owned(), computed()));
        }
        Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("json_object") => {
            return Ok(("'{}'".to_owned(), computed()));
        }
        Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("json_array") => {
            return Ok(("'[]'".to_owned(), computed()));
        }
        _ => return Err(unsupported(&format!("the default {words}"))),
    };
    let given = match (kind, text.parse()) {
        (ColumnType::Bit(_), Ok(n)) => rusqlite::types::ValueRef::Integer(n),
        _ => rusqlite::types::ValueRef::Text(text.as_bytes()),
    };
    let stored = kind.store(given, "default");
    let stored = stored.map_err(|_| Failure::new(1067, "42000", format!("Invalid default value {words}")))?;
    let shown = match (kind, &stored) {
        (ColumnType::Bit(_), rusqlite::types::Value::Integer(n)) => format!("b'{n:b}'"),
        (_, cell) => literal(kind.show(rusqlite::types::ValueRef::from(cell)).as_text().unwrap_or(&text)),
    };
    Ok((super::emit::show(&stored), Some(shown)))
}

fn column<'a>(
    table: &mut TableDef,
    name: &str,
    data_type: &ast::DataType,
    options: impl Iterator<Item = &'a ColumnOption>,
) -> Result<ColumnDef, Failure> {
    let mut column = ColumnDef {
        name: name.to_owned(),
        kind: ColumnType::declared(data_type)?,
        not_null: false,
        auto: false,
        default: None,
        default_words: None,
        on_update: None,
        comment: String::new(),
    };
    let names = || vec![name.to_owned()];
    for option in options {
        match option {
            // Checks wait until every column is known.
            ColumnOption::Null | ColumnOption::CharacterSet(_) | ColumnOption::Check(_) => {}
            ColumnOption::Comment(text) => column.comment.clone_from(text),
            ColumnOption::NotNull => column.not_null = true,
            ColumnOption::Default(expression) => {
                let (sql, words) = default(expression, &column.kind)?;
                column.default_words = words;
                column.default = Some(sql);
            }
            ColumnOption::OnUpdate(expression) => {
                column.on_update = Some(
                    digits_of(expression).ok_or_else(|| unsupported(&format!("ON UPDATE {expression}")))?,
                );
            }
            ColumnOption::PrimaryKey(_) => table.keys.push(Key {
                name: "PRIMARY".into(),
                columns: names(),
                unique: true,
                implied: false,
            }),
            ColumnOption::Unique(_) => {
                table.keys.push(Key { name: name.to_owned(), columns: names(), unique: true, implied: false })
            }
            ColumnOption::Collation(collation) => {
                if let ColumnType::Text { binary, .. } = &mut column.kind {
                    *binary = tells_case(&collation.to_string());
                }
            }
            ColumnOption::DialectSpecific(tokens) => {
                let words: Vec<String> = tokens.iter().map(|t| t.to_string().to_uppercase()).collect();
                match words.join(" ").as_str() {
                    "AUTO_INCREMENT" | "AUTOINCREMENT" => column.auto = true,
                    other => return Err(unsupported(other)),
                }
            }
            other => return Err(unsupported(&format!("the column option {other}"))),
        }
    }
    column.not_null |= column.auto;
    Ok(column)
}

fn key_columns(columns: &[ast::IndexColumn]) -> Result<Vec<String>, Failure> {
    let name = |column: &ast::IndexColumn| match &column.column.expr {
        Expr::Identifier(name) => Ok(name.value.clone()),
        // A prefix of a column: the whole column serves as well.
        Expr::Function(function) => Ok(function.name.to_string().replace('`', "")),
        other => Err(unsupported(&format!("the key part {other}"))),
    };
    columns.iter().map(name).collect()
}

fn add_key(
    table: &mut TableDef,
    name: Option<&ast::Ident>,
    columns: Vec<String>,
    unique: bool,
) -> Result<(), Failure> {
    for column in &columns {
        if table.column(column).is_none() {
            return Err(Failure::new(1072, "42000", format!("Key column '{column}' doesn't exist in table")));
        }
    }
    let base = name.map(|n| n.value.clone()).or_else(|| columns.first().cloned()).unwrap_or_default();
    let taken = |name: &str| table.keys.iter().any(|k| k.name.eq_ignore_ascii_case(name));
    if name.is_some() && taken(&base) {
        return Err(Failure::new(1061, "42000", format!("Duplicate key name '{base}'")));
    }
    let free = free_name(table, &base);
    table.keys.push(Key { name: free, columns, unique, implied: false });
    Ok(())
}

fn constrain(table: &mut TableDef, constraint: &TableConstraint) -> Result<(), Failure> {
    match constraint {
        TableConstraint::PrimaryKey(key) => {
            if !table.primary().is_empty() {
                return Err(Failure::new(1068, "42000", "Multiple primary key defined".to_owned()));
            }
            table.keys.insert(
                0,
                Key {
                    name: "PRIMARY".into(),
                    columns: key_columns(&key.columns)?,
                    unique: true,
                    implied: false,
                },
            );
            Ok(())
        }
        TableConstraint::Unique(key) => {
            add_key(table, key.index_name.as_ref().or(key.name.as_ref()), key_columns(&key.columns)?, true)
        }
        TableConstraint::Index(key) => add_key(table, key.name.as_ref(), key_columns(&key.columns)?, false),
        TableConstraint::ForeignKey(key) => {
            let (database, other) = table_name(&key.foreign_table)?;
            let action = |on: &str, action: &Option<ast::ReferentialAction>| {
                action.as_ref().map(|a| format!("ON {on} {a}")).unwrap_or_default()
            };
            let names = |list: &[ast::Ident]| list.iter().map(|i| i.value.clone()).collect::<Vec<_>>();
            let number = table.foreign.len() + 1;
            table.foreign.push(Foreign {
                name: key
                    .name
                    .as_ref()
                    .map_or_else(|| format!("{}_ibfk_{number}", table.name), |n| n.value.clone()),
                columns: names(&key.columns),
                table: format!("{}.{other}", database.unwrap_or(&table.database)),
                referred: names(&key.referred_columns),
                actions: format!("{} {}", action("DELETE", &key.on_delete), action("UPDATE", &key.on_update))
                    .trim()
                    .to_owned(),
            });
            Ok(())
        }
        TableConstraint::Check(constraint) => check(table, constraint),
        other => Err(unsupported(&format!("{other}"))),
    }
}

/// An index added to a table.
///
/// # Errors
/// What is not kept.
pub fn index(table: &mut TableDef, create: &ast::CreateIndex) -> Result<(), Failure> {
    let name = create.name.as_ref().and_then(|n| n.0.last()).and_then(|p| p.as_ident());
    add_key(table, name, key_columns(&create.columns)?, create.unique)
}

/// An index taken off a table.
///
/// # Errors
/// 1091 where there is none.
pub fn drop_index(table: &mut TableDef, name: &str) -> Result<(), Failure> {
    let before = table.keys.len();
    let kept: Vec<Key> = table.keys.iter().filter(|k| !k.name.eq_ignore_ascii_case(name)).cloned().collect();
    if kept.len() < before && table.foreign.iter().any(|foreign| !kept.iter().any(|key| serves(key, foreign)))
    {
        let needed = format!("Cannot drop index '{name}': needed in a foreign key constraint");
        return Err(Failure::new(1553, "HY000", needed));
    }
    table.keys.retain(|k| !k.name.eq_ignore_ascii_case(name));
    if table.keys.len() == before {
        return Err(Failure::new(
            1091,
            "42000",
            format!("Can't DROP '{name}'; check that column/key exists"),
        ));
    }
    Ok(())
}

/// One change of a table. Gives the renamed column, old and new name, if one was renamed.
///
/// # Errors
/// What is not kept.
pub fn alter(table: &mut TableDef, operation: &Op) -> Result<Option<(String, String)>, Failure> {
    let missing = |name: &str| Failure::new(1054, "42S22", format!("Unknown column '{name}'"));
    match operation {
        Op::AddColumn { column_def, column_position, .. } => {
            let name = &column_def.name.value;
            if table.column(name).is_some() {
                return Err(Failure::new(1060, "42S21", format!("Duplicate column name '{name}'")));
            }
            let column =
                column(table, name, &column_def.data_type, column_def.options.iter().map(|o| &o.option))?;
            let at = place(table, column_position.as_ref(), table.columns.len())?;
            table.columns.insert(at, column);
            for option in &column_def.options {
                if let ColumnOption::Check(constraint) = &option.option {
                    check(table, constraint)?;
                }
            }
        }
        Op::DropColumn { column_names, .. } => {
            for name in column_names {
                table.column(&name.value).ok_or_else(|| missing(&name.value))?;
                unchecked(table, &name.value)?;
                table.columns.retain(|c| !c.name.eq_ignore_ascii_case(&name.value));
                for key in &mut table.keys {
                    key.columns.retain(|c| !c.eq_ignore_ascii_case(&name.value));
                }
                table.keys.retain(|k| !k.columns.is_empty());
            }
        }
        Op::AddConstraint { constraint, .. } => constrain(table, constraint)?,
        Op::DropIndex { name } => drop_index(table, &name.value)?,
        Op::DropPrimaryKey { .. } => drop_index(table, "PRIMARY")?,
        Op::DropForeignKey { name, .. } => {
            table.foreign.retain(|f| !f.name.eq_ignore_ascii_case(&name.value))
        }
        Op::DropConstraint { name, .. } => {
            table.foreign.retain(|f| !f.name.eq_ignore_ascii_case(&name.value));
            table.checks.retain(|c| !c.name.eq_ignore_ascii_case(&name.value));
            table.keys.retain(|k| !k.name.eq_ignore_ascii_case(&name.value));
        }
        Op::RenameColumn { old_column_name, new_column_name } => {
            return rename(table, &old_column_name.value, &new_column_name.value).map(Some);
        }
        Op::ModifyColumn { col_name, data_type, options, column_position } => {
            change(table, &col_name.value, &col_name.value, data_type, options, column_position.as_ref())?;
        }
        Op::ChangeColumn { old_name, new_name, data_type, options, column_position } => {
            let renamed = rename(table, &old_name.value, &new_name.value)?;
            change(table, &new_name.value, &new_name.value, data_type, options, column_position.as_ref())?;
            return Ok(Some(renamed));
        }
        Op::AlterColumn { column_name, op } => {
            let at = table.columns.iter().position(|c| c.name.eq_ignore_ascii_case(&column_name.value));
            let column =
                at.and_then(|at| table.columns.get_mut(at)).ok_or_else(|| missing(&column_name.value))?;
            match op {
                ast::AlterColumnOperation::SetDefault { value } => {
                    let (sql, words) = default(value, &column.kind)?;
                    (column.default, column.default_words) = (Some(sql), words);
                }
                ast::AlterColumnOperation::DropDefault => {
                    (column.default, column.default_words) = (None, None)
                }
                other => return Err(unsupported(&format!("ALTER COLUMN {other}"))),
            }
        }
        other => return Err(unsupported(&format!("ALTER TABLE ... {other}"))),
    }
    Ok(None)
}

fn place(
    table: &TableDef,
    position: Option<&ast::MySQLColumnPosition>,
    otherwise: usize,
) -> Result<usize, Failure> {
    match position {
        None => Ok(otherwise),
        Some(ast::MySQLColumnPosition::First) => Ok(0),
        Some(ast::MySQLColumnPosition::After(name)) => {
            let at = table.columns.iter().position(|c| c.name.eq_ignore_ascii_case(&name.value));
            at.map(|at| at + 1).ok_or_else(|| Failure::new(1054, "42S22", format!("Unknown column '{name}'")))
        }
    }
}

fn rename(table: &mut TableDef, old: &str, new: &str) -> Result<(String, String), Failure> {
    if !old.eq_ignore_ascii_case(new) {
        unchecked(table, old)?;
    }
    let column = table.columns.iter_mut().find(|c| c.name.eq_ignore_ascii_case(old));
    let column = column.ok_or_else(|| Failure::new(1054, "42S22", format!("Unknown column '{old}'")))?;
    let old = std::mem::replace(&mut column.name, new.to_owned());
    for key in &mut table.keys {
        for column in key.columns.iter_mut().filter(|c| c.eq_ignore_ascii_case(&old)) {
            new.clone_into(column);
        }
    }
    Ok((old, new.to_owned()))
}

fn change(
    table: &mut TableDef,
    name: &str,
    new: &str,
    data_type: &ast::DataType,
    options: &[ColumnOption],
    position: Option<&ast::MySQLColumnPosition>,
) -> Result<(), Failure> {
    let at = table.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
    let at = at.ok_or_else(|| Failure::new(1054, "42S22", format!("Unknown column '{name}'")))?;
    let column = column(table, new, data_type, options.iter())?;
    table.columns.remove(at);
    let to = place(table, position, at)?;
    table.columns.insert(to, column);
    Ok(())
}

/// The copy of a table's rows into its new shape: SQLite's INSERT.
pub fn copy(old: &TableDef, new: &TableDef, from: &str, renamed: &[(String, String)]) -> String {
    let (mut targets, mut sources) = (Vec::new(), Vec::new());
    for column in &new.columns {
        let source = renamed
            .iter()
            .rev()
            .find(|(_, n)| n.eq_ignore_ascii_case(&column.name))
            .map_or(&column.name, |(o, _)| o);
        if let Some(kept) = old.column(source) {
            targets.push(super::schema::quote(&column.name));
            sources.push(super::emit::store(&super::schema::quote(&kept.name), column));
        } else if column.not_null && column.default.is_none() && !column.auto {
            // Strict mode or not, existing rows get the type's zero.
            let zero = match column.kind {
                ColumnType::Int { .. }
                | ColumnType::Decimal { .. }
                | ColumnType::Float
                | ColumnType::Double
                | ColumnType::Bit(_)
                | ColumnType::Year => "0".to_owned(),
                _ => literal(""),
            };
            targets.push(super::schema::quote(&column.name));
            sources.push(zero);
        }
    }
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM {from}",
        super::schema::quote(&new.stored()),
        targets.join(", "),
        sources.join(", ")
    )
}
