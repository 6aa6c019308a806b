//! How a merge goes: who asks, who gives, who takes, and who follows.

use std::sync::Arc;

use super::message::{Ask, Body, Carried, Moved};
use super::{Hop, Id, MAX_ALIASES, MAX_HOPS, Message, Redirect, Refused, VERSION, other_ids};
use crate::event::{Event, Merge, Numbers, Origin, ProfileChange, Reason, Reject, Source};
use crate::pipeline::codec::CodecError;
use crate::pipeline::engine::{Applied, Engine};
use crate::pipeline::join::Joining;
use crate::pipeline::outbox::Channel;
use crate::time::{MAX_TS, MIN_TS, Ts};

const CIRCLE: &str = "the customer was itself merged into the one that is to be merged into it";
const CONTRADICTED: &str = "the customer it is to be merged into was by earlier merges merged into it";
const TOO_LONG: &str = "more customers are being merged into one another than are followed";
const ELSEWHERE: &str = "the customer to be merged was merged into another one before";

impl Engine {
    /// As [`Engine::step`], for an engine that has every customer: what it must tell others it tells itself.
    pub fn step_alone(&mut self, event: &Event<'_>) -> Applied {
        let mut applied = self.step(event);
        while let Some(message) = self.identities.outgoing.pop_front() {
            if let Some((_, followed)) = self.receive(message) {
                applied = followed;
            }
        }
        // Nothing is under way that a merge could contradict.
        self.identities.forget_records(MAX_TS);
        applied
    }

    /// Takes in a message whose turn has come; returns what became of the event in it, if it brings one.
    pub fn receive(&mut self, message: Message) -> Option<(Source, Applied)> {
        let Message { to, at, path, body, .. } = message;
        match body {
            Body::Event(carried) => {
                let event = carried.event(&to, at);
                return Some((event.source, self.step_via(&event, &path)));
            }
            Body::Ask(ask) => self.give(&to, *ask, path),
            Body::State(moved) => self.take(&to, at, *moved, path),
            Body::Follow { target, via } => self.follow_another(&to, target.as_deref(), via, at),
            Body::Forget => self.be_forgotten(&to, at),
        }
        None
    }

    /// Whether a state in a message can be read; learns its layout. To be asked before the message is taken in.
    pub fn check_message(&mut self, message: &Message) -> Result<(), Reject> {
        if let Some((id, description)) = message.layout() {
            self.meet_layout(*id, description);
        }
        let checked = message.state().map_or(Ok(()), |state| self.check_state(state));
        checked.map_err(|error: CodecError| {
            Reject::new(Reason::InvalidField, format!("/body/state/state: {error}"))
        })
    }

    /// Sends the event of a customer without a state after whoever that is now; false when it is nobody else.
    pub(in crate::pipeline) fn follows(&mut self, event: &Event<'_>, path: &[Hop]) -> bool {
        if self.identities.redirects.is_empty() {
            return false;
        }
        let Some((target, path)) = self.next_hop(&event.customer_id, event.ts, path) else { return false };
        let body = Body::Event(Box::new(Carried::of(event)));
        self.identities.send(Message::new(&target, event.ts, path, body));
        true
    }

    /// Whether the customer was erased after an event of one of its other ids that comes only now, and after the
    /// merges that bring it.
    pub(in crate::pipeline) fn is_erased_on_the_way(&self, event: &Event<'_>, path: &[Hop]) -> bool {
        self.erased_since(&event.customer_id, event.ts.max(latest(path))).is_some()
    }

    /// Where something goes that came for `id` through `path`, and through what by then; `None`: it has arrived. A
    /// redirect that is over is dropped; a merge that makes a circle with earlier ones, or too long a way, is taken
    /// back. In a circle the way holds each redirect once, as it was met last.
    fn next_hop(&mut self, id: &str, ts: Ts, path: &[Hop]) -> Option<(Id, Vec<Hop>)> {
        let follow_ms = self.plan().settings.identity.follow_ms;
        let redirect = self.identities.redirects.get(id)?;
        let (target, until) = (redirect.target.clone(), redirect.until);
        if until <= ts {
            self.identities.change_redirect(id, None);
            return None;
        }
        let hop = Hop {
            id: id.into(),
            target: target.clone(),
            via: redirect.via.max(latest(path)),
            merged_at: redirect.merged_at,
            is_told: redirect.origin.is_some(),
        };
        let before = path.iter().position(|before| *before.id == *id);
        // What leads elsewhere by now may be no circle any more: the way begins anew.
        let is_same = |before: &Hop| before.target == hop.target && before.merged_at == hop.merged_at;
        let (before, path) = match before {
            Some(first) if !is_same(&path[first]) => (None, &[][..]),
            _ => (before, path),
        };
        let circle = before.map(|first| &path[first + 1..]);
        if circle.is_some_and(|others| others.iter().all(|other| other.rank() < hop.rank())) {
            self.take_back(id, CONTRADICTED);
            return None;
        }
        if circle.is_none() && path.len() >= MAX_HOPS {
            self.take_back(id, TOO_LONG);
            return None;
        }
        let way = circle.unwrap_or(path).iter().cloned().chain([hop]).collect();
        // Seldom enough to write little, often enough that who is in use is not forgotten.
        if until.saturating_sub(ts) < follow_ms / 2 {
            let until = end_of_redirect(ts, follow_ms);
            let longer = self.identities.redirects.get(id).map(|now| Redirect { until, ..now.clone() });
            self.identities.change_redirect(id, longer);
        }
        Some((target, way))
    }

    /// The merge of this id does not hold: it is a customer of its own again.
    fn take_back(&mut self, id: &str, why: &str) {
        let origin = self.identities.redirects.get(id).and_then(|redirect| redirect.origin.clone());
        self.identities.change_redirect(id, None);
        self.refuse(origin, why);
    }

    /// A merge has come to the customer that is to remain: asks the other for what it has.
    pub(in crate::pipeline) fn ask(&mut self, event: &Event<'_>) -> Applied {
        let Some(ProfileChange::Merged(Merge { from_id, origin })) = event.profile.as_deref() else {
            return Applied::InOrder;
        };
        if **from_id == *event.customer_id {
            self.refuse(origin.clone(), CIRCLE);
            return Applied::Refused;
        }
        let is_new = self.store.find(&event.customer_id).is_none();
        self.send_ask(from_id, event, Ask { origin: origin.clone(), ..Ask::of(event, is_new) });
        Applied::InOrder
    }

    /// Traits of the customer may name other ids of it: asks these for what they have. `is_new`: nobody knew the
    /// customer before the event. An id that is somebody's already stays theirs.
    pub(in crate::pipeline) fn ask_by_traits(&mut self, event: &Event<'_>, is_new: bool) {
        if event.profile.is_none() {
            return;
        }
        let plan = Arc::clone(&self.plan);
        for id in other_ids(&plan.settings.identity, event) {
            self.send_ask(&id, event, Ask { by_trait: true, ..Ask::of(event, is_new) });
        }
    }

    fn send_ask(&mut self, from: &str, event: &Event<'_>, ask: Ask) {
        self.identities.send(Message::new(from, event.ts, Vec::new(), Body::Ask(Box::new(ask))));
    }

    fn refuse(&mut self, origin: Option<Box<Origin>>, why: &str) {
        let reject = Reject::new(Reason::InvalidMerge, why);
        self.identities.refused.push(Refused { source: Source::Profile, origin, reject });
    }

    /// Gives what a customer has to the one that it is now. Whoever was merged before is asked in vain, unless
    /// it was into the same.
    fn give(&mut self, from: &str, ask: Ask, path: Vec<Hop>) {
        let Ask { target, merged_at, event_id, origin, is_new, by_trait } = &ask;
        if **target == *from {
            return;
        }
        if let Some((next, path)) = self.next_hop(from, *merged_at, &path) {
            if next != *target {
                self.identities.send(Message::new(&next, *merged_at, path, Body::Ask(Box::new(ask))));
            }
            return;
        }
        if !path.is_empty() {
            // A trait is told again and again, and its record was of use.
            if !by_trait {
                self.refuse(origin.clone(), ELSEWHERE);
            }
            return;
        }
        let known = self.store.find(from);
        let is_gone = known.is_none() && self.shut_out(from, *merged_at).is_some();
        let (state, at, ids) = match known {
            _ if is_gone => (None, *merged_at, Vec::new()),
            Some(index) => {
                let (state, at) = self.let_go(index, *merged_at);
                (Some(state), at, self.redirect(from, target, *merged_at, origin.clone()))
            }
            None => (None, *merged_at, self.redirect(from, target, *merged_at, origin.clone())),
        };
        let layout = state.as_ref().map(|_| (self.plan().layout_id, self.plan().description.clone()));
        let (merged_at, is_new, by_trait, event_id) = (*merged_at, *is_new, *by_trait, event_id.clone());
        let moved = Moved { merged_at, is_new, event_id, state, layout, ids, by_trait };
        self.identities.send(Message::new(target, at, Vec::new(), Body::State(Box::new(moved))));
    }

    /// Lets a customer live until it is merged, and go. Its state, and the instant that is as of.
    fn let_go(&mut self, index: u32, merged_at: Ts) -> (Vec<u8>, Ts) {
        let plan = Arc::clone(&self.plan);
        self.live_through(&plan, index, merged_at - 1);
        let mut state = Vec::new();
        self.encode(index, &mut state);
        let at = self.plan().head.now.get(self.store.row(index)).max(merged_at);
        self.store.touch(index, false);
        self.count_out(index);
        self.store.erase(index);
        let id = self.store.id(index).to_owned();
        self.outbox.push_tombstone(Channel::ChurnScores, &id, at);
        (state, at)
    }

    /// From now on events of `from` follow `target`, and so do those of everybody who was `from`. Returns all.
    fn redirect(&mut self, from: &str, target: &str, at: Ts, origin: Option<Box<Origin>>) -> Vec<Id> {
        let until = end_of_redirect(at, self.plan().settings.identity.follow_ms);
        let (target_id, noted_at) = (target.into(), self.opt_outs.wall());
        let redirect =
            Redirect { v: VERSION, target: target_id, via: at, merged_at: at, until, origin, noted_at };
        self.identities.change_redirect(from, Some(redirect));
        let mut ids = self.identities.take_aliases(from);
        self.tell_to_follow(&ids, Some(target), at, at);
        ids.push(from.into());
        ids
    }

    fn tell_to_follow(&mut self, ids: &[Id], target: Option<&str>, via: Ts, at: Ts) {
        for id in ids.iter().filter(|id| target != Some(&***id)) {
            let body = Body::Follow { target: target.map(Id::from), via };
            self.identities.send(Message::new(id, at, Vec::new(), body));
        }
    }

    fn follow_another(&mut self, id: &str, target: Option<&str>, via: Ts, at: Ts) {
        let Some(redirect) = self.identities.redirects.get(id) else { return };
        let until = redirect.until.max(end_of_redirect(at, self.plan().settings.identity.follow_ms));
        let via = redirect.via.max(via);
        if target == Some(id) {
            return self.take_back(id, CONTRADICTED);
        }
        let to = target.map(|target| Redirect { target: target.into(), via, until, ..redirect.clone() });
        self.identities.change_redirect(id, to);
    }

    /// Takes what somebody had who is this customer now, or sends it after whoever that is. If this customer was
    /// erased after the merge, what comes by it is erased too, whoever has this id meanwhile.
    fn take(&mut self, to: &str, at: Ts, moved: Moved, path: Vec<Hop>) {
        let via = moved.merged_at.max(latest(&path));
        if let Some(erased_at) = self.erased_since(to, via) {
            return self.forget_ids(&moved.ids, erased_at);
        }
        let known = self.store.find(to);
        if known.is_none() {
            if let Some((next, path)) = self.next_hop(to, at, &path) {
                return self.identities.send(Message::new(&next, at, path, Body::State(Box::new(moved))));
            }
            if let Some(opt_out) = self.shut_out(to, via) {
                return self.forget_ids(&moved.ids, opt_out.erased_at);
            }
        }
        let decoded = moved.state.as_deref().and_then(|state| self.decode(state).ok());
        // Its own comes back where the merge it went away by does not hold: it goes on as it was.
        let is_own = moved.ids.last().is_some_and(|sender| **sender == *to);
        match decoded {
            Some(decoded) => {
                let merge = Joining {
                    merged_at: moved.merged_at,
                    event_id: moved.event_id.as_deref().filter(|_| !is_own),
                    is_new: moved.is_new || is_own,
                };
                self.join(to, *decoded, at, &merge);
            }
            None if is_own || moved.by_trait => {}
            None => {
                let event = plain_merge(to, &moved);
                let hash = event.event_id.as_deref().map(|id| xxhash_rust::xxh3::xxh3_64(id.as_bytes()));
                self.take_in(known, &event, hash);
            }
        }
        if !path.is_empty() {
            self.tell_to_follow(&moved.ids, Some(to), via, at);
        }
        self.know_as(to, moved.ids, at);
    }

    /// Remembers by which other ids a customer is known.
    fn know_as(&mut self, to: &str, ids: Vec<Id>, at: Ts) {
        let mut aliases = self.identities.aliases(to).to_vec();
        aliases.retain(|known| !ids.contains(known));
        aliases.extend(ids.into_iter().filter(|id| **id != *to));
        let surplus = aliases.len().saturating_sub(MAX_ALIASES);
        let oldest: Vec<Id> = aliases.drain(..surplus).collect();
        self.tell_to_follow(&oldest, None, MIN_TS, at);
        if *aliases != *self.identities.aliases(to) {
            self.identities.change_aliases(to, aliases);
        }
    }

    /// A customer was erased: so is whoever it was.
    pub(in crate::pipeline) fn forget_aliases(&mut self, id: &str, at: Ts) {
        let ids = self.identities.take_aliases(id);
        self.forget_ids(&ids, at);
    }

    fn forget_ids(&mut self, ids: &[Id], at: Ts) {
        for id in ids {
            self.identities.send(Message::new(id, at, Vec::new(), Body::Forget));
        }
    }

    fn be_forgotten(&mut self, id: &str, at: Ts) {
        if self.identities.redirects.contains_key(id) {
            self.identities.change_redirect(id, None);
            self.note_erased(id, at, true);
        }
    }
}

impl Ask {
    fn of(event: &Event<'_>, is_new: bool) -> Ask {
        Ask {
            target: event.customer_id.as_ref().into(),
            is_new,
            merged_at: event.ts,
            event_id: event.event_id.as_deref().map(Id::from),
            origin: None,
            by_trait: false,
        }
    }
}

/// The merge as an event that brings nothing.
fn plain_merge(to: &str, moved: &Moved) -> Event<'static> {
    Event {
        source: Source::Profile,
        customer_id: to.to_owned().into(),
        name: "customers_merged".into(),
        ts: moved.merged_at,
        event_id: moved.event_id.as_deref().map(|id| id.to_owned().into()),
        numbers: Numbers::default(),
        profile: None,
        channel: None,
    }
}

/// The latest of the merges that brought something here.
fn latest(path: &[Hop]) -> Ts {
    path.last().map_or(MIN_TS, |hop| hop.via)
}

fn end_of_redirect(at: Ts, follow_ms: i64) -> Ts {
    at.saturating_add(follow_ms).min(MAX_TS)
}
