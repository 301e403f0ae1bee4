//! What can be checked of functions before they run: the calls that their text spells out.
//!
//! Contract: a name that leads from the top of the spec to one of our objects
//! (`api.public.get(...)`, `auth.sign(...)`, `step(db.main, "exec", ...)`) must exist, and so
//! must every keyword of the call. Names that are bound anywhere inside a function are left
//! alone: what they hold is known only when it runs.
//! Not modelled: attributes of responses, and whatever is computed.

use super::builtins;
use super::call::unknown_parameter;
use super::diagnostics::{Diagnostic, Problem, place_in};
use super::dialect::{FrozenModule, Heap, Module, Token, Value};
use super::late::{self, Placed};
use super::steps;
use super::values::{
    BuiltinValue, InterfaceValue, MethodValue, MockValue, ModuleValue, ServiceValue, VerbValue,
};
use crate::protocol::{Protocol, Verb};
use std::collections::BTreeSet;

/// Checks the calls in the text of a module.
pub fn check(file: &str, text: &str, module: &FrozenModule) -> Vec<Diagnostic> {
    let (tokens, whole) = late::tokens(text);
    if !whole {
        return Vec::new();
    }
    let lint = Lint { file, text, tokens: &tokens, local: local_names(&tokens), module };
    Module::with_temp_heap(|scratch| {
        (0..tokens.len()).filter_map(|index| lint.name_at(index, scratch.heap()).err()).collect()
    })
}

/// Names that are bound inside functions: parameters, loop variables, assignments.
fn local_names(tokens: &[Placed]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let (mut depth, mut indent) = (0usize, 0usize);
    for (index, (_, token, _)) in tokens.iter().enumerate() {
        let rest = tokens.get(index + 1..).unwrap_or_default();
        let until = |end: fn(&Token) -> bool| rest.iter().map(|(_, t, _)| t).take_while(move |t| !end(t));
        let identifiers = |end: fn(&Token) -> bool| {
            until(end).filter_map(|token| match token {
                Token::Identifier(name) => Some(name.as_str()),
                _ => None,
            })
        };
        match token {
            // The name of the function itself and the values of defaults come along: harmless.
            Token::Def => names.extend(identifiers(|t| matches!(t, Token::Newline)).skip(1)),
            Token::Lambda => names.extend(identifiers(|t| matches!(t, Token::Colon))),
            Token::For if indent > 0 || depth > 0 => names.extend(identifiers(|t| matches!(t, Token::In))),
            Token::OpeningRound | Token::OpeningSquare | Token::OpeningCurly => depth += 1,
            Token::ClosingRound | Token::ClosingSquare | Token::ClosingCurly => {
                depth = depth.saturating_sub(1)
            }
            Token::Indent => indent += 1,
            Token::Dedent => indent = indent.saturating_sub(1),
            Token::Identifier(name) if depth == 0 && indent > 0 => {
                let binds = until(|t| matches!(t, Token::Newline))
                    .take_while(|t| matches!(t, Token::Comma | Token::Identifier(_) | Token::Equal))
                    .any(|t| matches!(t, Token::Equal));
                if binds {
                    names.insert(name.as_str());
                }
            }
            _ => {}
        }
    }
    names
}

struct Lint<'a> {
    file: &'a str,
    text: &'a str,
    tokens: &'a [Placed],
    local: BTreeSet<&'a str>,
    module: &'a FrozenModule,
}

impl Lint<'_> {
    fn token(&self, index: usize) -> Option<&Token> {
        self.tokens.get(index).map(|(_, token, _)| token)
    }

    fn identifier(&self, index: usize) -> Option<&str> {
        match self.token(index) {
            Some(Token::Identifier(name)) => Some(name),
            _ => None,
        }
    }

    fn error(&self, index: usize, problem: Problem) -> Diagnostic {
        let place =
            self.tokens.get(index).and_then(|(from, _, to)| place_in(self.file, self.text, *from, *to));
        Diagnostic { message: problem.message, place, hints: problem.hint.into_iter().collect() }
    }

    /// Checks the dotted name that begins at a token, and its call.
    fn name_at(&self, index: usize, heap: Heap<'_>) -> Result<(), Diagnostic> {
        let before = index.checked_sub(1).and_then(|before| self.token(before));
        if self.identifier(index).is_none() || matches!(before, Some(Token::Dot | Token::Def)) {
            return Ok(());
        }
        if matches!(self.token(index + 1), Some(Token::Equal)) {
            return Ok(());
        }
        let Some((value, end)) = self.resolve(index, heap)? else { return Ok(()) };
        match self.token(end + 1) {
            Some(Token::OpeningRound) => self.call(value, end + 1, heap),
            _ => Ok(()),
        }
    }

    /// What a dotted name leads to, and the index of its last token.
    fn resolve<'v>(&self, index: usize, heap: Heap<'v>) -> Result<Option<(Value<'v>, usize)>, Diagnostic> {
        let Some(name) = self.identifier(index).filter(|name| !self.local.contains(name)) else {
            return Ok(None);
        };
        let value = match self.module.get_any_visibility(name) {
            Ok((value, _)) => heap.access_owned_frozen_value(&value),
            Err(_) => match builtins::global(name, heap) {
                Some(value) => value,
                None => return Ok(None),
            },
        };
        let (mut value, mut at) = (value, index);
        while matches!(self.token(at + 1), Some(Token::Dot)) {
            let Some(name) = self.identifier(at + 2) else { return Ok(None) };
            let ours = ServiceValue::from_value(value).is_some()
                || InterfaceValue::from_value(value).is_some()
                || MockValue::from_value(value).is_some()
                || ModuleValue::from_value(value).is_some();
            if !ours {
                return Ok(None);
            }
            at += 2;
            value = match value.get_attr(name, heap) {
                Ok(Some(value)) => value,
                _ => {
                    let names = value.dir_attr();
                    let problem = Problem::new(format!("{} has no attribute `{name}`", value.to_str()));
                    return Err(self.error(at, problem.nearest(name, names.iter().map(String::as_str))));
                }
            };
        }
        Ok(Some((value, at)))
    }

    /// Checks the keywords of the call whose parenthesis is at `open`.
    fn call(&self, callee: Value<'_>, open: usize, heap: Heap<'_>) -> Result<(), Diagnostic> {
        let arguments = self.arguments(open);
        let def = BuiltinValue::from_value(callee).map(|builtin| builtin.0);
        if let Some(verb) = VerbValue::from_value(callee) {
            return self.keywords(&arguments, verb.protocol, verb.verb, verb.target.is_none());
        }
        let method = MethodValue::from_value(callee).map(|method| method.def);
        let module = ModuleValue::from_value(callee).and_then(|module| module.function);
        let Some(def) = def.or(method).or(module) else { return Ok(()) };
        if def.name == "step" {
            return self.step(&arguments, heap);
        }
        for (index, name) in arguments.iter().filter_map(|(index, name)| Some((*index, name.as_deref()?))) {
            if !def.extra && !def.params.iter().any(|param| param.name == name) {
                return Err(self.error(index, unknown_parameter(def, name)));
            }
        }
        Ok(())
    }

    /// `step(interface, "verb", ...)`.
    fn step(&self, arguments: &[(usize, Option<String>)], heap: Heap<'_>) -> Result<(), Diagnostic> {
        let [(interface, None), (verb, None), rest @ ..] = arguments else { return Ok(()) };
        // What is wrong with the interface's own name is reported where that name is checked.
        let resolved = self.resolve(*interface, heap).ok().flatten();
        let (Some((value, end)), Some(Token::String(name))) = (resolved, self.token(*verb)) else {
            return Ok(());
        };
        let whole = matches!(self.token(end + 1), Some(Token::Comma));
        let Some(interface) = InterfaceValue::from_value(value).filter(|_| whole) else { return Ok(()) };
        let protocol = interface.info().protocol;
        match protocol.verbs().iter().find(|known| known.name == name) {
            Some(known) => self.keywords(rest, protocol, known, false),
            None => Err(self.error(*verb, steps::unknown_verb(protocol, name))),
        }
    }

    fn keywords(
        &self,
        arguments: &[(usize, Option<String>)],
        protocol: &dyn Protocol,
        verb: &Verb,
        asks: bool,
    ) -> Result<(), Diagnostic> {
        for (index, name) in arguments.iter().filter_map(|(index, name)| Some((*index, name.as_deref()?))) {
            if let Some(problem) =
                steps::unknown_keyword(protocol, verb, name).filter(|_| !(asks && name == "interface"))
            {
                return Err(self.error(index, problem));
            }
        }
        Ok(())
    }

    /// The arguments of a call: index of the first token of each, and its name.
    fn arguments(&self, open: usize) -> Vec<(usize, Option<String>)> {
        let mut arguments = Vec::new();
        let (mut depth, mut expecting, mut lambdas) = (0usize, true, 0usize);
        for index in open..self.tokens.len() {
            let token = self.token(index);
            let closing =
                matches!(token, Some(Token::ClosingRound | Token::ClosingSquare | Token::ClosingCurly));
            if depth == 1 && expecting && !closing {
                expecting = false;
                let named = matches!(self.token(index + 1), Some(Token::Equal));
                arguments.push((index, self.identifier(index).filter(|_| named).map(str::to_owned)));
            }
            match token {
                Some(Token::OpeningRound | Token::OpeningSquare | Token::OpeningCurly) => depth += 1,
                Some(_) if closing => depth -= 1,
                Some(Token::Lambda) if depth == 1 => lambdas += 1,
                Some(Token::Colon) if depth == 1 && lambdas > 0 => lambdas -= 1,
                Some(Token::Comma) if depth == 1 && lambdas == 0 => expecting = true,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        arguments
    }
}
