//! Calls of builtins: parameters, and the check that nothing is ignored.
//!
//! Contract: an unknown keyword is reported before a missing argument, and by name with the
//! nearest right one; a parameter given twice is an error; what a builtin does not look at
//! cannot be passed to it.

use super::convert;
use super::diagnostics::{Argument, Problem};
use super::dialect::{
    Arguments, DictRef, Error, Evaluator, FileSpan, ListRef, Result, TupleRef, UnpackFloat, UnpackValue,
    Value,
};
use super::late;
use super::state::Context;
use super::values::Receiver;
use std::time::Duration;

/// A parameter of a builtin.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Whether a call without it is an error.
    pub required: bool,
    /// Whether it may be given by position.
    pub positional: bool,
}

/// A parameter that must be given.
pub const fn required(name: &'static str) -> Param {
    Param { name, required: true, positional: true }
}

/// A parameter that may be given, by position too.
pub const fn optional(name: &'static str) -> Param {
    Param { name, required: false, positional: true }
}

/// A parameter that may be given by keyword only.
pub const fn keyword(name: &'static str) -> Param {
    Param { name, required: false, positional: false }
}

/// What runs when a builtin is called.
pub type Run = for<'c, 'v, 'a, 'e> fn(&mut Call<'c, 'v, 'a, 'e>) -> Result<Value<'v>>;

/// A builtin function.
pub struct Def {
    /// Its name.
    pub name: &'static str,
    /// Its parameters, in order of position.
    pub params: &'static [Param],
    /// Whether it takes further positional arguments.
    pub rest: bool,
    /// Whether it takes keywords of its own choosing (and checks them itself).
    pub extra: bool,
    /// What runs.
    pub run: Run,
}

impl std::fmt::Debug for Def {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<builtin {}>", self.name)
    }
}

/// Arguments as they were given.
pub struct Given<'v> {
    /// By position.
    pub positional: Vec<Value<'v>>,
    /// By name.
    pub named: Vec<(String, Value<'v>)>,
}

impl<'v> Given<'v> {
    /// The arguments of a call, late positional ones in their place.
    pub fn of(args: &Arguments<'v, '_>, eval: &Evaluator<'v, '_, '_>) -> Result<Given<'v>> {
        let mut positional: Vec<Value<'v>> = args.positions(eval.heap())?.collect();
        let mut named = Vec::new();
        for (name, value) in args.names_map()? {
            match name.as_str().strip_prefix(late::KEYWORD) {
                Some(_) => positional.push(value),
                None => named.push((name.as_str().to_owned(), value)),
            }
        }
        Ok(Given { positional, named })
    }
}

/// One call of a builtin.
pub struct Call<'c, 'v, 'a, 'e> {
    /// Who evaluates.
    pub eval: &'c mut Evaluator<'v, 'a, 'e>,
    /// Who is called.
    pub def: &'static Def,
    /// The object whose method it is.
    pub receiver: Option<&'c Receiver>,
    values: Vec<Option<(Argument, Value<'v>)>>,
    /// Further positional arguments.
    pub rest: Vec<(Argument, Value<'v>)>,
    /// Keywords of the caller's choosing.
    pub extra: Vec<(String, Value<'v>)>,
}

impl<'c, 'v, 'a, 'e> Call<'c, 'v, 'a, 'e> {
    /// Binds the arguments and runs the builtin.
    pub fn run(
        def: &'static Def,
        receiver: Option<&'c Receiver>,
        given: Given<'v>,
        eval: &'c mut Evaluator<'v, 'a, 'e>,
    ) -> Result<Value<'v>> {
        let mut call = Call {
            eval,
            def,
            receiver,
            values: vec![None; def.params.len()],
            rest: Vec::new(),
            extra: Vec::new(),
        };
        call.bind(given)?;
        (def.run)(&mut call)
    }

    fn bind(&mut self, given: Given<'v>) -> Result<(), Problem> {
        let def = self.def;
        let mut named = Vec::new();
        for (name, value) in given.named {
            match def.params.iter().position(|param| param.name == name) {
                Some(index) => named.push((index, name, value)),
                None if def.extra => self.extra.push((name, value)),
                None => return Err(unknown_parameter(def, &name)),
            }
        }
        let by_position = def.params.iter().take_while(|param| param.positional).count();
        for (index, value) in given.positional.into_iter().enumerate() {
            let argument = Argument::Positional(index);
            if index < by_position {
                self.values[index] = Some((argument, value));
            } else if def.rest {
                self.rest.push((argument, value));
            } else {
                let message = match by_position {
                    0 => format!("{}() takes no positional arguments", def.name),
                    1 => format!("{}() takes one positional argument", def.name),
                    n => format!("{}() takes {n} positional arguments", def.name),
                };
                let names = def.params.iter().filter(|p| !p.positional).map(|p| p.name).collect::<Vec<_>>();
                let problem = Problem::new(message).about(Some(argument));
                return Err(match names.is_empty() {
                    true => problem,
                    false => problem.hint(format!("by keyword: {}", names.join(", "))),
                });
            }
        }
        for (index, name, value) in named {
            if self.values[index].is_some() {
                return Err(Problem::new(format!("{}() got `{name}` twice", def.name)).at(&name));
            }
            self.values[index] = Some((Argument::Named(name), value));
        }
        for (param, value) in def.params.iter().zip(&self.values) {
            if param.required && value.is_none() {
                return Err(Problem::new(format!("{}() needs `{}`", def.name, param.name)));
            }
        }
        Ok(())
    }

    /// The state of the load or of the run.
    pub fn context(&self) -> Result<&'a Context> {
        let context = self.eval.extra.and_then(|extra| extra.downcast_ref::<Context>());
        context.ok_or_else(|| Error::from(Problem::new("a builtin was called outside a spec")))
    }

    /// Where the call stands.
    pub fn span(&self) -> Option<FileSpan> {
        let depth = self.eval.call_stack_count();
        (0..depth).find_map(|n| self.eval.call_stack_nth_location(n))
    }

    fn slot(&self, name: &str) -> Option<&(Argument, Value<'v>)> {
        let index = self.def.params.iter().position(|param| param.name == name)?;
        self.values.get(index)?.as_ref()
    }

    /// An argument that is not `None`.
    pub fn value(&self, name: &str) -> Option<Value<'v>> {
        self.slot(name).map(|(_, value)| *value).filter(|value| !value.is_none())
    }

    /// Whether an argument was given, even as `None`.
    pub fn given(&self, name: &str) -> bool {
        self.slot(name).is_some()
    }

    /// An argument that must be given, even as `None`.
    pub fn slot_value(&self, name: &str) -> Result<Value<'v>, Problem> {
        let value = self.slot(name).map(|(_, value)| *value);
        value.ok_or_else(|| Problem::new(format!("{}() needs `{name}`", self.def.name)))
    }

    /// An argument that must not be `None`.
    pub fn needed(&self, name: &str) -> Result<Value<'v>, Problem> {
        self.value(name).ok_or_else(|| self.problem(name, format!("{}() needs `{name}`", self.def.name)))
    }

    /// A problem with an argument.
    pub fn problem(&self, name: &str, message: impl Into<String>) -> Problem {
        Problem::new(message).about(self.slot(name).map(|(argument, _)| argument.clone()))
    }

    /// Points a problem at an argument, unless it points somewhere already.
    pub fn aimed(&self, name: &str, problem: Problem) -> Problem {
        match problem.argument {
            Some(_) => problem,
            None => problem.about(self.slot(name).map(|(argument, _)| argument.clone())),
        }
    }

    /// Points the problem of a result at an argument.
    pub fn blame<T>(&self, name: &str, result: Result<T, Problem>) -> Result<T, Problem> {
        result.map_err(|problem| self.aimed(name, problem))
    }

    fn wrong_type(&self, name: &str, wanted: &str, value: Value<'v>) -> Problem {
        self.problem(name, format!("`{name}` is {wanted}, not {}", described(value)))
    }

    /// A string.
    pub fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match value.unpack_str() {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(self.wrong_type(name, "a string", value)),
            },
        }
    }

    /// A string that must be given.
    pub fn needed_text(&self, name: &str) -> Result<String, Problem> {
        self.needed(name)?;
        Ok(self.text(name)?.unwrap_or_default())
    }

    /// A truth value.
    pub fn truth(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match value.unpack_bool() {
                Some(truth) => Ok(Some(truth)),
                None => Err(self.wrong_type(name, "True or False", value)),
            },
        }
    }

    /// An integer.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Problem> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match convert::integer(value) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong_type(name, "an integer", value)),
            },
        }
    }

    /// A duration in a string.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, Problem> {
        self.value(name).map(|value| self.blame(name, convert::duration(value))).transpose()
    }

    /// The items of a list or tuple; nothing where it was not given.
    pub fn list(&self, name: &str) -> Result<Vec<Value<'v>>, Problem> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(value) => items(value).ok_or_else(|| self.wrong_type(name, "a list", value)),
        }
    }

    /// Strings of a list.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Problem> {
        let texts = self.list(name)?.into_iter().map(|item| match item.unpack_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.problem(name, format!("`{name}` holds strings, not {}", described(item)))),
        });
        texts.collect()
    }

    /// The entries of a dict.
    pub fn dict(&self, name: &str) -> Result<Vec<(Value<'v>, Value<'v>)>, Problem> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(value) => match DictRef::from_value(value) {
                Some(dict) => Ok(dict.iter().collect()),
                None => Err(self.wrong_type(name, "a dict", value)),
            },
        }
    }

    /// The entries of a dict whose keys are strings.
    pub fn named_dict(&self, name: &str) -> Result<Vec<(String, Value<'v>)>, Problem> {
        let entries = self.dict(name)?.into_iter().map(|(key, value)| match key.unpack_str() {
            Some(key) => Ok((key.to_owned(), value)),
            None => Err(self.problem(name, format!("keys of `{name}` are strings, not {}", described(key)))),
        });
        entries.collect()
    }

    /// A callable.
    pub fn callable(&self, name: &str) -> Result<Option<Value<'v>>, Problem> {
        match self.value(name) {
            None => Ok(None),
            Some(value) if is_callable(value) => Ok(Some(value)),
            Some(value) => Err(self.wrong_type(name, "a function", value)),
        }
    }
}

/// A keyword that a builtin does not have.
pub fn unknown_parameter(def: &Def, name: &str) -> Problem {
    Problem::new(format!("{}() has no parameter `{name}`", def.name))
        .at(name)
        .nearest(name, def.params.iter().map(|param| param.name))
}

/// Whether a value is a function of the spec.
pub fn is_callable(value: Value<'_>) -> bool {
    value.parameters_spec().is_some()
}

/// The items of a list or tuple.
pub fn items(value: Value<'_>) -> Option<Vec<Value<'_>>> {
    match ListRef::from_value(value) {
        Some(list) => Some(list.content().to_vec()),
        None => TupleRef::from_value(value).map(|tuple| tuple.content().to_vec()),
    }
}

/// A scalar as the text of an environment variable.
pub fn scalar_text(value: Value<'_>) -> Option<String> {
    if let Some(truth) = value.unpack_bool() {
        return Some(truth.to_string());
    }
    if let Some(text) = value.unpack_str() {
        return Some(text.to_owned());
    }
    match (convert::integer(value), UnpackFloat::unpack_value(value)) {
        (Some(number), _) => Some(number.to_string()),
        (None, Ok(Some(UnpackFloat(number)))) => Some(number.to_string()),
        _ => None,
    }
}

/// A value in an error message: its type, and itself where it is short.
pub fn described(value: Value<'_>) -> String {
    match scalar_text(value) {
        Some(_) => value.to_repr(),
        None if value.is_none() => "None".to_owned(),
        None => format!("a {}", value.get_type()),
    }
}
