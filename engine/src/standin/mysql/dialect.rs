//! MySQL's grammar as the parser has it, with the precedences that it gets wrong.
//!
//! Contract: pure. `BINARY x` binds tighter than every operator (the parser would take all of
//! `BINARY 'a%' OR b` for its operand), `||` is `OR` and binds like it, `!x` is known.
//! Not modelled: the SQL mode (`PIPES_AS_CONCAT`, `ANSI_QUOTES`).

use super::session::Failure;
use sqlparser::ast::{CastKind, DataType, Expr, Statement, UnaryOperator};
use sqlparser::dialect::{BindPlaceholderStyle, Dialect, MySqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// Reads one statement.
///
/// # Errors
/// 1064 where it cannot be read, or is not one.
pub fn parse(sql: &str) -> Result<Statement, Failure> {
    let syntax = |why: String| {
        let words = format!("You have an error in your SQL syntax, as the Faultbox stand-in reads it: {why}");
        Failure::new(1064, "42000", words)
    };
    let mut parsed = Parser::parse_sql(&Grammar, sql).map_err(|e| syntax(e.to_string()))?;
    match parsed.len() {
        1 => Ok(parsed.remove(0)),
        n => Err(syntax(format!("{n} statements"))),
    }
}

const BASE: MySqlDialect = MySqlDialect {};

#[derive(Debug)]
struct Grammar;

/// What the parser's own dialect says yes to. (What is new there in a later version of it has to
/// be named here too.)
macro_rules! as_in_base {
    ($($name:ident)*) => { $(fn $name(&self) -> bool { BASE.$name() })* };
}

impl Dialect for Grammar {
    fn dialect(&self) -> std::any::TypeId {
        BASE.dialect()
    }

    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let tightly = self.prec_value(Precedence::DoubleColon);
        if parser.consume_token(&Token::ExclamationMark) {
            let not = |operand| Expr::UnaryOp { op: UnaryOperator::BangNot, expr: Box::new(operand) };
            return Some(parser.parse_subexpr(tightly).map(not));
        }
        if !parser.parse_keyword(Keyword::BINARY) {
            return None;
        }
        let operand = parser.parse_subexpr(tightly);
        Some(operand.map(|operand| Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(operand),
            data_type: DataType::Binary(None),
            format: None,
        }))
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            Token::StringConcat => Some(Ok(self.prec_value(Precedence::Or))),
            _ => BASE.get_next_precedence(parser),
        }
    }

    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        left: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        BASE.parse_infix(parser, left, precedence)
    }

    fn parse_statement(&self, parser: &mut Parser<'_>) -> Option<Result<Statement, ParserError>> {
        BASE.parse_statement(parser)
    }

    fn is_identifier_start(&self, c: char) -> bool {
        BASE.is_identifier_start(c)
    }

    fn is_identifier_part(&self, c: char) -> bool {
        BASE.is_identifier_part(c)
    }

    fn is_delimited_identifier_start(&self, c: char) -> bool {
        BASE.is_delimited_identifier_start(c)
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        BASE.identifier_quote_style(identifier)
    }

    fn ordered_bind_placeholder_style(&self) -> Option<BindPlaceholderStyle> {
        BASE.ordered_bind_placeholder_style()
    }

    fn is_table_factor_alias(&self, explicit: bool, word: &Keyword, parser: &mut Parser<'_>) -> bool {
        BASE.is_table_factor_alias(explicit, word, parser)
    }

    fn supports_string_literal_table_alias(&self, explicit: bool) -> bool {
        BASE.supports_string_literal_table_alias(explicit)
    }

    as_in_base! {
        ignores_wildcard_escapes
        require_interval_qualifier
        requires_single_line_comment_whitespace
        supports_alter_column_position
        supports_binary_kw_as_cast
        supports_bitwise_shift_operators
        supports_comma_separated_set_assignments
        supports_comment_optimizer_hint
        supports_constraint_keyword_without_name
        supports_create_table_select
        supports_cross_join_constraint
        supports_data_type_signed_suffix
        supports_data_type_zerofill_suffix
        supports_double_ampersand_operator
        supports_group_by_with_modifier
        supports_hash_comment
        supports_insert_set
        supports_key_column_option
        supports_left_associative_joins_without_parens
        supports_limit_comma
        supports_literal_prefix_in_qualified_name
        supports_match_against
        supports_multiline_comment_hints
        supports_numeric_prefix
        supports_select_modifiers
        supports_set_names
        supports_singular_value_keyword
        supports_string_literal_backslash_escape
        supports_string_literal_concatenation
        supports_table_hints
        supports_table_partitions
        supports_update_order_by
        supports_user_host_grantee
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The condition with every grouping shown.
    fn grouped(condition: &str) -> String {
        fn show(e: &Expr) -> String {
            match e {
                Expr::BinaryOp { left, op, right } => format!("({} {op} {})", show(left), show(right)),
                Expr::Like { expr, pattern, .. } => format!("({} LIKE {})", show(expr), show(pattern)),
                Expr::Cast { expr, .. } => format!("BINARY[{}]", show(expr)),
                other => other.to_string(),
            }
        }
        let statement = parse(&format!("SELECT 1 FROM t WHERE {condition}"));
        let Ok(Statement::Query(query)) = statement else { panic!("{condition}: {statement:?}") };
        let sqlparser::ast::SetExpr::Select(select) = &*query.body else { panic!("{condition}") };
        select.selection.as_ref().map(show).unwrap_or_default()
    }

    #[test]
    fn binary_takes_one_operand() {
        assert_eq!(grouped("a LIKE BINARY 'u%' OR b LIKE '%x'"), "((a LIKE BINARY['u%']) OR (b LIKE '%x'))");
        assert_eq!(grouped("BINARY t.a = ? AND b = 1"), "((BINARY[t.a] = ?) AND (b = 1))");
    }

    #[test]
    fn bars_are_or() {
        assert_eq!(grouped("a = 1 || b = 2 && c = 3"), "((a = 1) || ((b = 2) AND (c = 3)))");
    }

    #[test]
    fn the_rest_is_as_the_parser_has_it() {
        for sql in [
            "INSERT INTO t SET a = 'it\\'s' 'x', b = b'1'",
            "SELECT a DIV 2 FROM `t` USE INDEX (i) WHERE d > NOW() - INTERVAL 1 DAY LIMIT 1, 2 # end",
            "ALTER TABLE t ADD COLUMN c INT UNSIGNED ZEROFILL FIRST",
            "UPDATE t SET a = 1 ORDER BY b LIMIT 3",
            "SELECT SQL_CALC_FOUND_ROWS 1 FROM t WHERE MATCH(a) AGAINST ('x')",
        ] {
            assert_eq!(
                parse(sql).map_err(|_| ()),
                Parser::parse_sql(&BASE, sql).map(|mut s| s.remove(0)).map_err(|_| ()),
                "{sql}"
            );
        }
        assert!(parse("SELECT 1; SELECT 2").is_err() && parse("SELECT FROM WHERE").is_err());
    }
}
