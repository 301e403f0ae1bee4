//! Late positional arguments: `service("db", image = ..., interface(...))`.
//!
//! The parser refuses a positional argument after a named one. This rewriter gives each such
//! argument a reserved keyword and wraps the callee (`__late(service)("db", image = ...,
//! __late_0 = interface(...))`); at the call [`super::values::LateCall`] puts the arguments
//! back in order. A parameter that is given twice is still an error there.
//!
//! Contract: text is only inserted, never moved or removed, and never a line break: lines
//! stay, evaluation order stays, and [`Rewritten::original`] maps every offset back. A program
//! without late positional arguments is returned unchanged, as is one that cannot be read.
//! Not modelled: positional arguments after `*args` or `**kwargs`; the parser refuses those.

use super::dialect::{CodeMap, Lexer, Token, dialect};

/// The reserved keyword of late argument `n` is this and `n`.
pub const KEYWORD: &str = "__late_";
/// The function that wraps a callee.
pub const WRAPPER: &str = "__late";

/// A program after rewriting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The text that the parser gets.
    pub text: String,
    /// (offset in the original, length of what was inserted there), ascending.
    insertions: Vec<(usize, usize)>,
}

impl Rewritten {
    /// The offset in the original that an offset in the rewritten text stands for.
    pub fn original(&self, at: usize) -> usize {
        let mut inserted = 0;
        for (offset, len) in &self.insertions {
            let start = offset + inserted;
            if at < start {
                break;
            }
            if at < start + len {
                return *offset;
            }
            inserted += len;
        }
        at - inserted
    }
}

/// A token and where it stands.
pub type Placed = (usize, Token, usize);

/// The tokens of a text without comments, up to the first that cannot be read.
pub fn tokens(text: &str) -> (Vec<Placed>, bool) {
    let mut lexer = Lexer::new(text, &dialect(), CodeMap::new(String::new(), text.to_owned()));
    let mut tokens = Vec::new();
    while let Some(lexeme) = lexer.next() {
        match lexeme {
            Ok((_, Token::Comment(_), _)) => {}
            Ok(token) => tokens.push(token),
            Err(_) => return (tokens, false),
        }
    }
    (tokens, true)
}

/// Deepest nesting of brackets and of blocks.
const NESTING_MAX: usize = 200;
/// Most operators in one statement: an expression is as deep as its operators are many.
const OPERATORS_MAX: usize = 5_000;

/// Where a program nests deeper than the parser's and compiler's recursion can bear.
pub fn too_deep(tokens: &[Placed]) -> Option<(usize, usize)> {
    let (mut brackets, mut blocks, mut operators) = (0usize, 0usize, 0usize);
    for (begin, token, end) in tokens {
        match token {
            Token::OpeningRound | Token::OpeningSquare | Token::OpeningCurly | Token::FStringStart(_) => {
                brackets += 1
            }
            Token::ClosingRound | Token::ClosingSquare | Token::ClosingCurly | Token::FStringEnd => {
                brackets = brackets.saturating_sub(1);
            }
            Token::Indent => blocks += 1,
            Token::Dedent => blocks = blocks.saturating_sub(1),
            Token::Newline => operators = 0,
            // What separates items of a flat list or dict nests nothing.
            Token::Comma
            | Token::Colon
            | Token::Equal
            | Token::Identifier(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Float(_)
            | Token::Bytes(_) => {}
            _ => operators += 1,
        }
        if brackets > NESTING_MAX || blocks > NESTING_MAX || operators > OPERATORS_MAX {
            return Some((*begin, *end));
        }
    }
    None
}

/// Rewrites the late positional arguments of a program.
pub fn rewrite(text: &str) -> Rewritten {
    let (tokens, whole) = tokens(text);
    if !whole {
        return Rewritten { text: text.to_owned(), insertions: Vec::new() };
    }
    let mut insertions = Scanner { tokens: &tokens, opener: vec![None; tokens.len()] }.scan();
    // What was found later encloses what was found earlier: at one place it stands first.
    insertions.reverse();
    insertions.sort_by_key(|(offset, _)| *offset);
    let mut rewritten = String::with_capacity(text.len() + 64);
    let mut at = 0;
    for (offset, inserted) in &insertions {
        rewritten.push_str(&text[at..*offset]);
        rewritten.push_str(inserted);
        at = *offset;
    }
    rewritten.push_str(&text[at..]);
    let insertions = insertions.into_iter().map(|(offset, inserted)| (offset, inserted.len())).collect();
    Rewritten { text: rewritten, insertions }
}

/// An open bracket.
struct Open {
    at: usize,
    /// A call's parentheses, not a tuple's or a definition's.
    call: bool,
    /// The next token begins an argument.
    expecting: bool,
    named: bool,
    starred: bool,
    lambdas: usize,
    late: Vec<usize>,
}

struct Scanner<'a> {
    tokens: &'a [Placed],
    /// For each closing token, the index of the one that it closes.
    opener: Vec<Option<usize>>,
}

impl Scanner<'_> {
    fn token(&self, index: usize) -> Option<&Token> {
        self.tokens.get(index).map(|(_, token, _)| token)
    }

    fn scan(mut self) -> Vec<(usize, String)> {
        let mut insertions = Vec::new();
        let mut stack: Vec<Open> = Vec::new();
        for index in 0..self.tokens.len() {
            let Some((begin, token, _)) = self.tokens.get(index) else { break };
            if let Some(open) = stack.last_mut().filter(|open| open.call) {
                note_argument(open, token, self.token(index + 1), *begin);
            }
            match token {
                Token::OpeningRound | Token::OpeningSquare | Token::OpeningCurly => {
                    let call = matches!(token, Token::OpeningRound) && self.is_call(index);
                    stack.push(Open::new(index, call));
                }
                Token::FStringStart(_) | Token::FStringExprStart => stack.push(Open::new(index, false)),
                Token::ClosingRound
                | Token::ClosingSquare
                | Token::ClosingCurly
                | Token::FStringExprEnd
                | Token::FStringEnd => {
                    let Some(open) = stack.pop() else { break };
                    self.opener[index] = Some(open.at);
                    if !open.late.is_empty() {
                        self.insert(&open, &mut insertions);
                    }
                }
                _ => {}
            }
        }
        insertions
    }

    fn insert(&self, open: &Open, insertions: &mut Vec<(usize, String)>) {
        let Some(last) = open.at.checked_sub(1) else { return };
        let first = self.primary_start(last);
        let (Some((begin, ..)), Some((.., end))) = (self.tokens.get(first), self.tokens.get(last)) else {
            return;
        };
        for (number, offset) in open.late.iter().enumerate().rev() {
            insertions.push((*offset, format!("{KEYWORD}{number} = ")));
        }
        insertions.push((*end, ")".to_owned()));
        insertions.push((*begin, format!("{WRAPPER}(")));
    }

    /// Whether the parenthesis at `index` opens the arguments of a call.
    fn is_call(&self, index: usize) -> bool {
        let Some(before) = index.checked_sub(1) else { return false };
        let defined =
            before.checked_sub(1).and_then(|i| self.token(i)).is_some_and(|t| matches!(t, Token::Def));
        !defined && self.ends_primary(before)
    }

    fn ends_primary(&self, index: usize) -> bool {
        matches!(self.token(index), Some(Token::Identifier(_) | Token::ClosingRound | Token::ClosingSquare))
    }

    /// Index of the first token of the primary expression that ends with the token `last`.
    fn primary_start(&self, last: usize) -> usize {
        let mut at = last;
        loop {
            let closed = self.opener.get(at).copied().flatten();
            let (start, operand) = match closed {
                // A call or a subscript belongs to what stands before it; a tuple or list does not.
                Some(open) => (
                    open,
                    open.checked_sub(1).filter(|before| {
                        let braces =
                            matches!(self.token(open), Some(Token::OpeningRound | Token::OpeningSquare));
                        braces && self.ends_primary(*before)
                    }),
                ),
                None => (at, None),
            };
            at = match operand {
                Some(operand) => operand,
                None => match start.checked_sub(2) {
                    Some(owner) if matches!(self.token(start - 1), Some(Token::Dot)) => owner,
                    _ => return start,
                },
            };
        }
    }
}

impl Open {
    fn new(at: usize, call: bool) -> Self {
        Open { at, call, expecting: true, named: false, starred: false, lambdas: 0, late: Vec::new() }
    }
}

/// Takes note of a token that stands directly between a call's parentheses.
fn note_argument(open: &mut Open, token: &Token, next: Option<&Token>, begin: usize) {
    if open.expecting && !matches!(token, Token::ClosingRound) {
        open.expecting = false;
        match (token, next) {
            (Token::Identifier(_), Some(Token::Equal)) => open.named = true,
            (Token::Star | Token::StarStar, _) => open.starred = true,
            _ if open.named && !open.starred => open.late.push(begin),
            _ => {}
        }
    }
    match token {
        // The commas between a lambda's parameters separate no arguments.
        Token::Lambda => open.lambdas += 1,
        Token::Colon if open.lambdas > 0 => open.lambdas -= 1,
        Token::Comma if open.lambdas == 0 => open.expecting = true,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(program: &str) -> String {
        rewrite(program).text
    }

    #[test]
    fn late_arguments_get_keywords_and_their_callee_a_wrapper() {
        assert_eq!(text("f(a = 1, 2)"), "__late(f)(a = 1, __late_0 = 2)");
        assert_eq!(text("m.f[0](a = 1, g(2), 3)"), "__late(m.f[0])(a = 1, __late_0 = g(2), __late_1 = 3)");
        assert_eq!(
            text("f(a = 1, g(b = 2, 3))"),
            "__late(f)(a = 1, __late_0 = __late(g)(b = 2, __late_0 = 3))"
        );
        assert_eq!(text("f(a=1, 2)(b=3, 4)"), "__late(__late(f)(a=1, __late_0 = 2))(b=3, __late_0 = 4)");
        assert_eq!(text("x = {}.get(a=1, 2)"), "x = __late({}.get)(a=1, __late_0 = 2)");
        assert_eq!(text("x = \"%s\".f(a=1, (2, 3))"), "x = __late(\"%s\".f)(a=1, __late_0 = (2, 3))");
        assert_eq!(text("x = [f(a=1, 2)]"), "x = [__late(f)(a=1, __late_0 = 2)]");
        assert_eq!(
            text("return_(a=1,\n  # why, b\n  2)"),
            "__late(return_)(a=1,\n  # why, b\n  __late_0 = 2)"
        );
        assert_eq!(
            text("f(a = lambda x, y: x, lambda z, w: z)"),
            "__late(f)(a = lambda x, y: x, __late_0 = lambda z, w: z)"
        );
    }

    #[test]
    fn what_is_no_late_argument_stays() {
        for program in [
            "def f(a = 1, *b):\n  pass\n",
            "f(1, a = 2, *b, **c)\n",
            "f(a = (1, 2), b = [3, 4], c = {5: 6, 7: 8})\n",
            "f(a = lambda x, y = 2: x, b = 1)\n",
            "x = (1, 2)\ny = \"f(a = 1, 2)\" # f(a = 1, 2)\n",
            "load(\"a\", b = \"c\")\n",
            "f(a = [x for x in y if x], b = 1)\n",
            "f(a = 1, **b)\n",
            "f(a = 1, *b, 2)\n",
            "x = f\"{a} f(b = 1, 2)\"\n",
            "f(a = 'unfinished, 2)\n",
        ] {
            assert_eq!(text(program), program);
        }
    }

    fn expression() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "[a-e]".prop_map(|s| s),
            "[1-9][0-9]{0,2}",
            Just("\"a, b = (\"".to_owned()),
            Just("'x=1'".to_owned()),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..4);
            let named = prop::collection::vec(inner.clone(), 0..3);
            prop_oneof![
                list.clone().prop_map(|items| format!("[{}]", items.join(", "))),
                inner.clone().prop_map(|a| format!("({a}, 1)")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} + {b}")),
                inner.clone().prop_map(|a| format!("(lambda x, y: {a})")),
                (list, named).prop_map(|(positional, named)| {
                    let named = named.iter().enumerate().map(|(n, v)| format!("k{n} = {v}"));
                    let all: Vec<String> = positional.into_iter().chain(named).collect();
                    format!("f.g({})", all.join(",\n    "))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn programs_in_the_standard_order_are_unchanged(a in expression(), b in expression()) {
            let program = format!("x = {a}\ny = {b}\n");
            prop_assert_eq!(&rewrite(&program).text, &program);
        }

        #[test]
        fn every_original_byte_maps_back(a in expression(), b in expression(), c in expression()) {
            let program = format!("x = f(k = {a}, {b}, j = 1, {c})\n");
            let rewritten = rewrite(&program);
            prop_assert!(rewritten.text.contains("__late_1 = "));
            let mut kept = String::new();
            let mut before = 0;
            for (at, character) in rewritten.text.char_indices() {
                let original = rewritten.original(at);
                prop_assert!(original >= before);
                before = original;
                let inserted: usize = rewritten.insertions.iter().map(|(_, len)| len).sum();
                prop_assert_eq!(rewritten.text.len(), program.len() + inserted);
                if program[original..].starts_with(character) && kept.len() == original {
                    kept.push(character);
                }
            }
            prop_assert_eq!(kept, program.clone());
            prop_assert_eq!(rewritten.text.lines().count(), program.lines().count());
            super::super::dialect::parse("x.star", rewritten.text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        }

        #[test]
        fn any_text_is_survived(text in "[a-d(),= \\n\\[\\]{}\"'.:*#f]{0,60}") {
            let rewritten = rewrite(&text);
            prop_assert_eq!(rewritten.original(rewritten.text.len()), text.len());
        }
    }
}
