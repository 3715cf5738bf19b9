//! ILIKE and regular expressions. ✗ LIKE (`scalar`), matching.

use super::ir::{Expr, Kernel, Node, Word};
use super::registry;
use super::relation::Scope;
use super::{Analyzer, Letters, Outcome, Refused, names, refuse};
use lake::types::ColType;
use pgexact::regexp::Pattern;
use pgtree::oid::Function;
use pgtree::tree::Call;

impl Analyzer<'_> {
    /// `ILIKE`, `~`, `~*` and their negations.
    pub(super) fn pattern<'q>(
        &mut self,
        function: Function,
        call: &'q Call,
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        let unproven = || Refused(registry::refusal(call.func));
        let [text, pattern] = call.args.as_slice() else { return Err(unproven()) };
        self.deterministic(call.input_collation, &names::function(call.func))?;
        let arg = self.expr(text, scope)?;
        let Some(pattern) = self.word(pattern)?.filter(|_| arg.ty == ColType::Text) else {
            return Err(unproven());
        };
        let letters = self.letters_of(call.input_collation);
        let insensitive =
            matches!(function, Function::ILike | Function::NotILike | Function::IRegex | Function::NotIRegex);
        if insensitive && letters == Letters::Unknown {
            return Err(unproven());
        }
        let negated = matches!(function, Function::NotILike | Function::NotRegex | Function::NotIRegex);
        let kernel = match function {
            Function::ILike | Function::NotILike => {
                let usual = letters == Letters::Usual;
                match &pattern {
                    Word::Literal(p) if usual && !p.is_ascii() => {
                        return refuse("an ILIKE pattern beyond ASCII");
                    }
                    Word::Literal(p) if p.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 => {
                        return refuse("an ILIKE pattern that ends with its escape character");
                    }
                    _ => Kernel::ILike { pattern, negated, usual },
                }
            }
            _ => {
                if let Word::Literal(p) = &pattern
                    && Pattern::parse(p, insensitive).is_none()
                {
                    return refuse(format!("the regular expression \"{p}\""));
                }
                Kernel::Regex { pattern, insensitive, negated }
            }
        };
        Ok(Expr::boolean(Node::Call(kernel, vec![arg])))
    }
}
