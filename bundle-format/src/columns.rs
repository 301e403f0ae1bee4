//! Entries by columns: every field of every type has one, in order of declaration.
//!
//! Contract: [`put`] and [`take`] are exact inverses. What a column holds is self-delimiting, and how many values it
//! holds follows from the columns before it, so that no length of a column is stored. A reader allocates
//! for what it has read, within the limits, and refuses what is left over.
//! Not modelled: `Entry::cell`, which the frame says.

use crate::event::*;
use crate::limits;
use crate::sheet::Sheet;
use crate::template::Templates;
use crate::texts::Sort;
use crate::varint::{Reader, unzigzag, zigzag};

/// The place of the entry that a value belongs to.
#[derive(Debug, Clone, Copy)]
struct Of {
    seq: u64,
    at_ns: u64,
}

/// The columns of a chunk as they are read.
struct Source<'a> {
    columns: Reader<'a>,
    templates: Templates<'a>,
    /// Items of lists that there may yet be.
    items: usize,
}

impl Source<'_> {
    fn numbers(&mut self, count: usize) -> Result<Vec<u64>, String> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(self.columns.number()?);
        }
        Ok(numbers)
    }

    fn steps(&mut self, count: usize) -> Result<Vec<u64>, String> {
        let mut numbers = self.numbers(count)?;
        let mut last = 0u64;
        for number in &mut numbers {
            last = last.wrapping_add(unzigzag(*number) as u64);
            *number = last;
        }
        Ok(numbers)
    }

    /// Bytes below a bound.
    fn tags(&mut self, count: usize, bound: u8) -> Result<Vec<u8>, String> {
        let tags = self.columns.bytes(count)?;
        match tags.iter().find(|tag| **tag >= bound) {
            Some(tag) => Err(format!("a tag {tag} where there are {bound}")),
            None => Ok(tags.to_vec()),
        }
    }

    fn texts(&mut self, count: usize) -> Result<Vec<(u32, Vec<u8>)>, String> {
        self.templates.take(count, &mut self.columns)
    }
}

/// A type that is kept by columns.
trait Columnar: Sized {
    /// How many columns it has.
    const WIDTH: usize;

    /// Appends one value to the columns from `at` on.
    fn put(&self, at: usize, of: Of, out: &mut Sheet);

    /// As many values as there are entries in `of`, which says where each belongs.
    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String>;
}

fn width<T: Columnar>(_: &T) -> usize {
    T::WIDTH
}

const fn width_of<S, T: Columnar>(_: fn(&S) -> &T) -> usize {
    T::WIDTH
}

/// Of the first so many.
const fn sum(widths: &[usize], count: usize) -> usize {
    let (mut sum, mut at) = (0, 0);
    while at < count {
        sum += widths[at];
        at += 1;
    }
    sum
}

fn missing() -> String {
    "a column of too few values".to_owned()
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Columnar for $type {
            const WIDTH: usize = 1;

            fn put(&self, at: usize, _: Of, out: &mut Sheet) {
                out.number(at, u64::from(*self));
            }

            fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
                let narrow = |number| Self::try_from(number).map_err(|_| format!("the number {number} is too large"));
                from.numbers(of.len())?.into_iter().map(narrow).collect()
            }
        }
    )*};
}

number!(u16, u32, u64);

impl Columnar for i32 {
    const WIDTH: usize = 1;

    fn put(&self, at: usize, _: Of, out: &mut Sheet) {
        out.number(at, zigzag(i64::from(*self)));
    }

    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
        let narrow =
            |number| i32::try_from(unzigzag(number)).map_err(|_| format!("the number {number} is too large"));
        from.numbers(of.len())?.into_iter().map(narrow).collect()
    }
}

impl Columnar for bool {
    const WIDTH: usize = 1;

    fn put(&self, at: usize, _: Of, out: &mut Sheet) {
        out.byte(at, u8::from(*self));
    }

    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
        Ok(from.tags(of.len(), 2)?.into_iter().map(|tag| tag == 1).collect())
    }
}

impl Columnar for [u8; 32] {
    const WIDTH: usize = 1;

    fn put(&self, at: usize, _: Of, out: &mut Sheet) {
        out.bytes(at, self);
    }

    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
        of.iter().map(|_| from.columns.bytes(32)?.try_into().map_err(|_| missing())).collect()
    }
}

impl Columnar for String {
    const WIDTH: usize = 1;

    fn put(&self, at: usize, _: Of, out: &mut Sheet) {
        out.text(at, self.as_bytes(), Sort::Text);
    }

    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
        from.texts(of.len())?.into_iter().map(|(_, text)| utf8(text)).collect()
    }
}

impl Columnar for Name {
    const WIDTH: usize = 1;

    fn put(&self, at: usize, _: Of, out: &mut Sheet) {
        out.text(at, self.as_bytes(), Sort::Text);
    }

    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
        Ok(String::take(of, from)?.into_iter().map(Name::from).collect())
    }
}

fn utf8(text: Vec<u8>) -> Result<String, String> {
    String::from_utf8(text).map_err(|_| "text that is not UTF-8".to_owned())
}

impl Columnar for Vec<u8> {
    const WIDTH: usize = 1;

    fn put(&self, at: usize, _: Of, out: &mut Sheet) {
        out.text(at, self, Sort::Text);
    }

    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
        Ok(from.texts(of.len())?.into_iter().map(|(_, text)| text).collect())
    }
}

impl<T: Columnar> Columnar for Vec<T> {
    const WIDTH: usize = 1 + T::WIDTH;

    fn put(&self, at: usize, of: Of, out: &mut Sheet) {
        out.number(at, self.len() as u64);
        self.iter().for_each(|item| item.put(at + 1, of, out));
    }

    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
        let lengths = from.numbers(of.len())?;
        let mut each = Vec::new();
        for (length, of) in lengths.iter().zip(of) {
            let left = usize::try_from(*length).ok().and_then(|length| from.items.checked_sub(length));
            from.items = left.ok_or("lists of more items than a chunk may have")?;
            each.extend((0..*length).map(|_| *of));
        }
        let mut items = T::take(&each, from)?.into_iter();
        Ok(lengths.iter().map(|length| items.by_ref().take(*length as usize).collect()).collect())
    }
}

impl<T: Columnar> Columnar for Option<T> {
    const WIDTH: usize = 1 + T::WIDTH;

    fn put(&self, at: usize, of: Of, out: &mut Sheet) {
        out.byte(at, u8::from(self.is_some()));
        if let Some(some) = self {
            some.put(at + 1, of, out);
        }
    }

    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
        let tags = from.tags(of.len(), 2)?;
        let mut some = T::take(&with(&tags, of, 1), from)?.into_iter();
        Ok(tags.iter().map(|tag| if *tag == 1 { some.next() } else { None }).collect())
    }
}

/// The places of the values that have this tag.
fn with(tags: &[u8], of: &[Of], tag: u8) -> Vec<Of> {
    tags.iter().zip(of).filter(|(other, _)| **other == tag).map(|(_, of)| *of).collect()
}

/// Numbers that are kept as a difference.
trait Difference {
    fn put(number: u64, at: usize, of: Of, out: &mut Sheet);
    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<u64>, String>;
}

/// To the one before in the column.
struct Step;

impl Difference for Step {
    fn put(number: u64, at: usize, _: Of, out: &mut Sheet) {
        out.step(at, number);
    }

    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<u64>, String> {
        from.steps(of.len())
    }
}

/// From the entry's time or number back.
macro_rules! before {
    ($name:ident, $field:ident) => {
        struct $name;

        impl Difference for $name {
            fn put(number: u64, at: usize, of: Of, out: &mut Sheet) {
                out.number(at, zigzag(of.$field.wrapping_sub(number) as i64));
            }

            fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<u64>, String> {
                let numbers = from.numbers(of.len())?;
                Ok(numbers
                    .iter()
                    .zip(of)
                    .map(|(n, of)| of.$field.wrapping_sub(unzigzag(*n) as u64))
                    .collect())
            }
        }
    };
}

before!(BeforeTime, at_ns);
before!(BeforeSeq, seq);

/// A struct by its fields, in order of declaration; `as` says of a number what it is a difference to.
macro_rules! fields {
    ($name:ident { $($field:ident $(as $difference:ident)?),* $(,)? }) => {
        impl Columnar for $name {
            const WIDTH: usize = 0 $(+ width_of(|it: &$name| &it.$field))*;

            fn put(&self, at: usize, of: Of, out: &mut Sheet) {
                $(
                    fields!(@put $($difference)?, self.$field, at, of, out);
                    let at = at + width(&self.$field);
                )*
                let _ = at;
            }

            fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
                $(let mut $field = fields!(@take $($difference)?, of, from).into_iter();)*
                let one = |_: &Of| Some($name { $($field: $field.next()?),* });
                of.iter().map(one).collect::<Option<_>>().ok_or_else(missing)
            }
        }
    };
    (@put , $value:expr, $at:ident, $of:ident, $out:ident) => { Columnar::put(&$value, $at, $of, $out) };
    (@put $by:ident, $value:expr, $at:ident, $of:ident, $out:ident) => { $by::put($value, $at, $of, $out) };
    (@take , $of:ident, $from:ident) => { Columnar::take($of, $from)? };
    (@take $by:ident, $of:ident, $from:ident) => { $by::take($of, $from)? };
}

/// An enum by its variants, in order of declaration.
macro_rules! variants {
    ($name:ident { $($variant:ident $(($type:ty))?),* $(,)? }) => {
        impl Columnar for $name {
            const WIDTH: usize = 1 $($(+ <$type>::WIDTH)?)*;

            fn put(&self, at: usize, of: Of, out: &mut Sheet) {
                enum Tag { $($variant),* }
                const WIDTHS: &[usize] = &[$(0 $(+ <$type>::WIDTH)?),*];
                let _ = (of, WIDTHS);
                match self {
                    $(variants!(@of $name $variant it $($type)?) => {
                        out.byte(at, Tag::$variant as u8);
                        $(<$type>::put(it, at + const { 1 + sum(WIDTHS, Tag::$variant as usize) }, of, out);)?
                    })*
                }
            }

            fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
                #[derive(Clone, Copy)]
                enum Tag { $($variant),* }
                const ALL: &[Tag] = &[$(Tag::$variant),*];
                let tags = from.tags(of.len(), ALL.len() as u8)?;
                $($(
                    #[allow(non_snake_case, reason = "named as the variant is")]
                    let mut $variant = <$type>::take(&with(&tags, of, Tag::$variant as u8), from)?.into_iter();
                )?)*
                let one = |tag: &u8| match ALL.get(usize::from(*tag))? {
                    $(Tag::$variant => Some(variants!(@one $name $variant $($type)?)),)*
                };
                tags.iter().map(one).collect::<Option<_>>().ok_or_else(missing)
            }
        }
    };
    (@of $name:ident $variant:ident $it:ident) => { $name::$variant };
    (@of $name:ident $variant:ident $it:ident $type:ty) => { $name::$variant($it) };
    (@one $name:ident $variant:ident) => { $name::$variant };
    (@one $name:ident $variant:ident $type:ty) => { $name::$variant($variant.next()?) };
}

variants!(Phase { Run, Start, Scenario, Tail });
variants!(Body {
    RunStarted(RunStarted),
    File(StoredFile),
    HostFact(Named),
    CellStarted(CellStarted),
    Addresses(Vec<Named>),
    PhaseBegan,
    FaultWindow(FaultWindow),
    ServiceStarted(ServiceStarted),
    ServiceReady(String),
    ServiceExited(ServiceExited),
    Output(Output),
    StepStarted(StepStarted),
    StepEnded(StepEnded),
    Exchange(Exchange),
    Decision(Decision),
    Syscall(Syscall),
    Signed(Signed),
    Assertion(Assertion),
    Verdict(Verdict),
    RunEnded(RunEnded),
    Unknown(UnknownBody),
});
variants!(Class { Work, Control, Ambient });
variants!(Outcome { Answered, Dropped, Failed, Abandoned, OneWay });
variants!(Ending { Passed, Failed, Violated, Inconclusive, Error });
variants!(Blame { None, ServiceUnderTest, Dependency, InjectedFault, Faultbox, Spec });
fields!(Named { name, value });
fields!(RunStarted { seed, seed_source, tool_version, command, unix_ns, spec });
fields!(StoredFile { path, role, service, digest, content });
fields!(CellStarted { name, scenario, assumption, expectation });
fields!(FaultWindow { assumption, active, targets, rules });
fields!(ServiceStarted { service, pid, program, digest, args, env, isolated });
fields!(ServiceExited { service, code, signal, asked });
fields!(Output { service, stderr, bytes });
fields!(StepStarted { step, interface, verb, arguments, location });
fields!(StepEnded { step, response });
fields!(Exchange {
    protocol,
    source,
    interface,
    connection,
    operation,
    key,
    class,
    mutating,
    repeatable,
    request,
    outcome,
    response,
    rule,
    began_ns as BeforeTime,
    ended_ns as BeforeTime,
    began_seq as BeforeSeq,
});
fields!(RuleHit { assumption, index, action });
fields!(Decision { assumption, index, key, source, matched as Step, draw as Step, fired, on_sut });
fields!(Syscall { service, name, family, target, action, rule, on_sut });
fields!(Signed { service, claims });
fields!(Assertion { held, message, location });
fields!(Verdict { ending, reason, blame, fired, unreached, scenario_ns, cell_ns, digest });
fields!(FaultCount { assumption, index, rule, target, matched, fired });
fields!(RunEnded { passed, failed, interrupted });
fields!(UnknownBody { kind, bytes });

impl Columnar for Payload {
    const WIDTH: usize = 4;

    fn put(&self, at: usize, of: Of, out: &mut Sheet) {
        match self {
            Payload::Inline(bytes) => {
                out.byte(at, 0);
                out.text(at + 1, bytes, Sort::Value);
            }
            Payload::Blob { hash, len } => {
                out.byte(at, 1);
                hash.put(at + 2, of, out);
                len.put(at + 3, of, out);
            }
        }
    }

    fn take(of: &[Of], from: &mut Source<'_>) -> Result<Vec<Self>, String> {
        let tags = from.tags(of.len(), 2)?;
        let mut inline = Vec::<u8>::take(&with(&tags, of, 0), from)?.into_iter();
        let stored = with(&tags, of, 1);
        let mut hashes = <[u8; 32]>::take(&stored, from)?.into_iter();
        let mut lens = u64::take(&stored, from)?.into_iter();
        let one = |tag: &u8| match tag {
            0 => inline.next().map(Payload::Inline),
            _ => Some(Payload::Blob { hash: hashes.next()?, len: lens.next()? }),
        };
        tags.iter().map(one).collect::<Option<_>>().ok_or_else(missing)
    }
}

impl Sheet {
    /// Empty, for entries.
    pub fn begin(&mut self) {
        self.clear(Entry::WIDTH);
    }

    /// Appends an entry.
    pub fn put(&mut self, entry: &Entry) {
        entry.put(0, Of { seq: entry.seq, at_ns: entry.at_ns }, self);
    }
}

/// Apart from the others: the frame has its cell, and the ordinal is counted by stream.
impl Entry {
    const WIDTH: usize = 7 + Option::<u64>::WIDTH + Body::WIDTH - 1;

    fn put(&self, at: usize, of: Of, out: &mut Sheet) {
        out.step(at, self.seq);
        out.step(at + 1, self.at_ns);
        self.phase.put(at + 2, of, out);
        self.actor.put(at + 3, of, out);
        let stream = out.text(at + 4, self.stream.as_bytes(), Sort::Text);
        out.ordinal(at + 5, stream, self.ordinal);
        out.byte(at + 6, u8::from(self.cause.is_some()));
        if let Some(cause) = self.cause {
            BeforeSeq::put(cause, at + 7, of, out);
        }
        self.body.put(at + 8, of, out);
    }
}

/// The entries of a chunk.
///
/// # Errors
/// What cannot be, in words.
pub(crate) fn take(entries: u32, cell: u32, texts: &[u8], columns: &[u8]) -> Result<Vec<Entry>, String> {
    let count = entries as usize;
    if count > limits::CHUNK_ENTRIES_MAX {
        return Err(format!("{entries} entries are more than a chunk may have"));
    }
    let templates = Templates::read(texts)?;
    let mut from = Source { columns: Reader::of(columns), templates, items: limits::CHUNK_ITEMS_MAX };
    let seqs = from.steps(count)?;
    let times = from.steps(count)?;
    let of: Vec<Of> = seqs.iter().zip(&times).map(|(seq, at_ns)| Of { seq: *seq, at_ns: *at_ns }).collect();
    let mut phases = Phase::take(&of, &mut from)?.into_iter();
    let mut actors = Name::take(&of, &mut from)?.into_iter();
    let mut streams = from.texts(count)?.into_iter();
    let mut ordinals = from.numbers(count)?.into_iter();
    let caused = from.tags(count, 2)?;
    let mut causes = BeforeSeq::take(&with(&caused, &of, 1), &mut from)?.into_iter();
    let mut bodies = Body::take(&of, &mut from)?.into_iter();
    if !from.columns.is_empty() {
        return Err("bytes are left over after the columns".to_owned());
    }
    let mut expected = std::collections::BTreeMap::<u32, u64>::new();
    let mut entries = Vec::with_capacity(count);
    for (of, caused) in of.iter().zip(&caused) {
        let (number, stream) = streams.next().ok_or_else(missing)?;
        let expected = expected.entry(number).or_default();
        let ordinal = expected.wrapping_add(unzigzag(ordinals.next().ok_or_else(missing)?) as u64);
        *expected = ordinal.wrapping_add(1);
        entries.push(Entry {
            seq: of.seq,
            at_ns: of.at_ns,
            cell,
            phase: phases.next().ok_or_else(missing)?,
            actor: actors.next().ok_or_else(missing)?,
            stream: utf8(stream)?,
            ordinal,
            cause: if *caused == 1 { causes.next() } else { None },
            body: bodies.next().ok_or_else(missing)?,
        });
    }
    Ok(entries)
}
