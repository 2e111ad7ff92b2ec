//! Rules: who may do what. The same in all four scopes.

use http::{HeaderName, Method};

use super::model::{Condition, Effect, Expect, Rule, Scope};
use super::node::{Fields, Node};

pub(super) const KEYS: [&str; 7] = ["id", "effect", "methods", "path", "headers", "query", "claims"];

pub(super) const EFFECTS: [(&str, Effect); 2] = [("allow", Effect::Allow), ("deny", Effect::Deny)];

pub(super) const METHODS: [(&str, Method); 7] = [
    ("GET", Method::GET),
    ("POST", Method::POST),
    ("PUT", Method::PUT),
    ("PATCH", Method::PATCH),
    ("DELETE", Method::DELETE),
    ("OPTIONS", Method::OPTIONS),
    ("HEAD", Method::HEAD),
];

pub(super) const CONDITION_KEYS: [&str; 3] = ["name", "value", "presence"];

pub(super) const PRESENCE: [(&str, bool); 2] = [("present", true), ("absent", false)];

/// `default_effect` and `rules` of an entry.
pub(super) fn scope(fields: &Fields<'_>) -> Option<Scope> {
    let default_effect = fields.or("default_effect", Effect::Allow, |node| node.choice(&EFFECTS));
    let mut ids = Vec::new();
    let rules = fields.or("rules", Vec::new(), |node| node.items(|node| rule(node, &mut ids)));
    Some(Scope { default_effect: default_effect?, rules: rules?.into() })
}

fn rule(node: Node<'_>, ids: &mut Vec<Box<str>>) -> Option<Rule> {
    let fields = node.fields(&KEYS)?;
    let id = fields.required("id", "write a name that tells a denied caller which rule it was", |node| {
        let id = rule_id(node)?;
        if ids.contains(&id) {
            return node.wrong("names an earlier rule of this list too; write another id");
        }
        ids.push(id.clone());
        Some(id)
    });
    let effect = fields.required("effect", "write `allow` or `deny`", |node| node.choice(&EFFECTS));
    let methods = fields.or("methods", Vec::new(), |node| node.some_items(method));
    let path = fields.optional("path", Node::regex);
    let conditions = |key, name: fn(Node<'_>) -> Option<Box<str>>| {
        fields.or(key, Vec::new(), |node| node.some_items(|node| condition(node, name)))
    };
    let headers = conditions("headers", header_name);
    let query = conditions("query", any_name);
    let claims = conditions("claims", any_name);
    Some(Rule {
        id: id?,
        effect: effect?,
        methods: methods?.into(),
        path: path?,
        headers: headers?.into(),
        query: query?.into(),
        claims: claims?.into(),
    })
}

/// The id of a rule goes into answers, where it must not break anything.
fn rule_id(node: Node<'_>) -> Option<Box<str>> {
    let id = node.text()?;
    if id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        Some(id.into())
    } else {
        node.wrong("is not the id of a rule; write letters, digits, `-`, `_` and `.` only")
    }
}

fn method(node: Node<'_>) -> Option<Method> {
    let choices: [(&str, usize); METHODS.len()] = std::array::from_fn(|index| (METHODS[index].0, index));
    node.choice(&choices).map(|index| METHODS[index].1.clone())
}

fn condition(node: Node<'_>, name: fn(Node<'_>) -> Option<Box<str>>) -> Option<Condition> {
    let fields = node.fields(&CONDITION_KEYS)?;
    let name = fields.required("name", "write the name that the condition is about", name);
    let value = fields.optional("value", Node::regex);
    let presence = fields.optional("presence", |node| node.choice(&PRESENCE));
    let expect = match (value?, presence?) {
        (Some(_), Some(_)) => {
            return node.problem("gives both `value` and `presence`; keep one of them (`value` asks for presence too)");
        }
        (Some(pattern), None) => Expect::Value(pattern),
        (None, Some(false)) => Expect::Absent,
        (None, _) => Expect::Present,
    };
    Some(Condition { name: name?, expect })
}

fn header_name(node: Node<'_>) -> Option<Box<str>> {
    match HeaderName::from_bytes(node.text()?.as_bytes()) {
        Ok(name) => Some(name.as_str().into()),
        Err(_) => node.wrong("is not the name of a header; write one like `X-Tenant`"),
    }
}

fn any_name(node: Node<'_>) -> Option<Box<str>> {
    node.text().map(Into::into)
}
