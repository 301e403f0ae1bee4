//! What stands in for a protocol that is not built yet; goes when the last one is.
use super::*;
pub struct Stub(pub &'static str);
impl Protocol for Stub {
    fn name(&self) -> &'static str {
        self.0
    }
    fn matchers(&self) -> &'static [&'static str] {
        &[]
    }
    fn verbs(&self) -> &'static [Verb] {
        &[]
    }
    fn effect_parameters(&self) -> &'static [&'static str] {
        &[]
    }
    fn check_rule(&self, _: &Rule) -> Result<(), RuleProblem> {
        Ok(())
    }
    fn proxy(
        &self,
        _: Stream,
        _: Arc<dyn Dial>,
        _: Arc<Link>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>> {
        Box::pin(async { Err(ProtocolError::Cut) })
    }
    fn serve(
        &self,
        _: Stream,
        _: Arc<Link>,
        _: Arc<dyn Responder>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>> {
        Box::pin(async { Err(ProtocolError::Cut) })
    }
    fn step<'a>(&'a self, _: Arc<dyn Dial>, _: Arc<Link>, _: &'a StepCall) -> BoxFuture<'a, StepResponse> {
        Box::pin(async { StepResponse::no_answer("not built") })
    }
    fn ready<'a>(&'a self, _: Stream, _: Arc<Link>) -> BoxFuture<'a, Result<(), ProtocolError>> {
        Box::pin(async { Ok(()) })
    }
}
