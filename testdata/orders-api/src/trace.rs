//! W3C trace context: one trace a request, one span an outgoing call.

use uuid::Uuid;

/// The header's name, on HTTP, gRPC and Kafka alike.
pub const HEADER: &str = "traceparent";

/// The trace that a request belongs to.
#[derive(Debug, Clone)]
pub struct Trace {
    id: String,
}

impl Trace {
    /// The caller's trace where its header makes sense, else a new one.
    pub fn of(header: Option<&str>) -> Trace {
        let given = header.and_then(trace_id).map(str::to_owned);
        Trace { id: given.unwrap_or_else(|| Uuid::new_v4().simple().to_string()) }
    }

    /// A new trace.
    pub fn begin() -> Trace {
        Trace::of(None)
    }

    /// The header's value for one outgoing call.
    pub fn span(&self) -> String {
        let (span, _) = Uuid::new_v4().as_u64_pair();
        format!("00-{}-{span:016x}-01", self.id)
    }

    /// The trace's id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

fn trace_id(header: &str) -> Option<&str> {
    let mut parts = header.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let whole = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    (whole && trace.bytes().any(|b| b != b'0')).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_trace_goes_on_and_nonsense_starts_a_new_one() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let header = format!("00-{id}-00f067aa0ba902b7-01");
        assert_eq!(Trace::of(Some(&header)).id(), id);
        for nonsense in ["", "00", "00-xyz-1-1", &header.to_uppercase(), &header[..40]] {
            assert_ne!(Trace::of(Some(nonsense)).id(), id, "{nonsense}");
        }
        let span = Trace::of(Some(&header)).span();
        assert_eq!(trace_id(&span), Some(id));
        assert_ne!(span, Trace::of(Some(&header)).span());
    }
}
