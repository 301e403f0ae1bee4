//! The Starlark dialect: the one place that names the `starlark` crate.
//!
//! Contract: everything that the rest of the front end needs of the crate is re-exported here;
//! [`parse`] and [`limit`] say which language specs are written in and how much of the
//! machine they may use.

pub use starlark::any::ProvidesStaticType;
pub use starlark::codemap::{CodeMap, FileSpan};
pub use starlark::environment::{FrozenModule, Globals, GlobalsBuilder, LibraryExtension, Module};
pub use starlark::eval::{Arguments, Evaluator, FileLoader};
pub use starlark::syntax::{AstModule, Dialect};
pub use starlark::values::dict::{AllocDict, DictRef};
pub use starlark::values::float::UnpackFloat;
pub use starlark::values::list::{AllocList, ListRef};
pub use starlark::values::structs::StructRef;
pub use starlark::values::tuple::TupleRef;
pub use starlark::values::{
    AllocValue, Heap, NoSerialize, OwnedFrozenValue, StarlarkPagablePanic, StarlarkValue, Trace, UnpackValue,
    Value, starlark_value,
};
pub use starlark::{Error, ErrorKind, PrintHandler, starlark_simple_value};
pub use starlark_syntax::lexer::{Lexer, Token};

/// A result of the evaluation, unless it says otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Deepest nesting of calls in a spec.
const CALLS_MAX: usize = 200;
/// Most work of one evaluation. An endless loop ends here after seconds, not hours.
const TICKS_MAX: u64 = 20_000_000;
/// Most memory of one evaluation, bytes.
const HEAP_MAX: usize = 512 * 1024 * 1024;

/// The dialect of specs: standard Starlark, f-strings, statements at the top level.
pub fn dialect() -> Dialect {
    Dialect {
        enable_f_strings: true,
        enable_top_level_stmt: true,
        enable_keyword_only_arguments: true,
        ..Dialect::Standard
    }
}

/// Parses a module whose late positional arguments were already rewritten.
pub fn parse(file: &str, text: String) -> Result<AstModule> {
    AstModule::parse(file, text, &dialect())
}

/// The globals that every spec has, before Faultbox's own.
pub fn standard_globals() -> GlobalsBuilder {
    GlobalsBuilder::extended_by(&[
        LibraryExtension::StructType,
        LibraryExtension::Print,
        LibraryExtension::Json,
        LibraryExtension::Map,
        LibraryExtension::Filter,
    ])
}

/// Bounds what an evaluation may use.
pub fn limit(eval: &mut Evaluator<'_, '_, '_>) {
    // Each limit can be set once on a new evaluator, which is all that can go wrong here.
    let _ = eval.set_max_callstack_size(CALLS_MAX);
    let _ = eval.set_max_tick_count(TICKS_MAX);
    let _ = eval.set_max_heap_size(HEAP_MAX);
}
