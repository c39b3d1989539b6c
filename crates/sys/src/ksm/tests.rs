//! Domains on hosts that are folders: at most one holds a host, and the settings come back.

use proptest::prelude::*;

use super::record::Record;
use super::*;
use crate::host::Root;
use crate::host::root::Fixture;

const BEFORE: [(&str, &str); 5] = [
    ("advisor_mode", "none"),
    ("pages_to_scan", "100"),
    ("sleep_millisecs", "7"),
    ("use_zero_pages", "0"),
    ("run", "0"),
];

/// A host on which nobody shares; without an advisor if `names` leaves it out.
fn host(names: &[(&str, &str)]) -> Fixture {
    let files: Vec<(String, String)> = names
        .iter()
        .chain(&[("full_scans", "3")])
        .map(|(name, value)| (format!("{SYSFS}/{name}"), format!("{value}\n")))
        .collect();
    let files: Vec<(&str, &str)> =
        files.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Fixture::new(&files)
}

fn setting(root: &Root, name: &str) -> String {
    root.text(&format!("{SYSFS}/{name}")).unwrap().lines().next().unwrap().to_owned()
}

fn is_as_before(root: &Root) -> bool {
    BEFORE.iter().all(|(name, value)| setting(root, name) == *value)
}

fn web() -> Domain {
    Domain::Named("web".into())
}

fn member(pid: u32) -> Member {
    Member { pid, name: format!("vm{pid}") }
}

#[test]
fn the_second_domain_is_refused_and_told_who_holds_the_host() {
    let host = host(&BEFORE);
    std::fs::create_dir_all(host.root().as_ref().join("proc/2")).unwrap();
    let [mut one, mut two, mut other] = [(); 3].map(|()| Registry::open(&host.root()).unwrap());
    one.join(&web(), &member(1)).unwrap();
    two.join(&web(), &member(2)).unwrap();
    let refused = other.join(&Domain::Process(3), &member(3)).unwrap_err().to_string();
    assert!(
        refused.starts_with(
            "pages of this host are shared by the trust domain 'web' already (VM 'vm2', process 2)"
        ),
        "{refused}"
    );
    assert!(matches!(one.join(&Domain::Process(1), &member(1)), Err(RefusedJoin::Member(_))));
    one.leave(Departure::Unmerged).unwrap();
    assert!(other.join(&Domain::Process(3), &member(3)).is_err());
    two.leave(Departure::Unmerged).unwrap();
    assert!(is_as_before(&host.root()));
    other.join(&Domain::Process(3), &member(3)).unwrap();
    assert!(two.join(&Domain::Process(2), &member(2)).is_err(), "a single VM is a domain of its own");
}

#[test]
fn whoever_joins_first_sets_the_kernel_up() {
    let mut before = BEFORE;
    before[0].1 = "scan-time";
    let host = host(&before);
    let mut vm = Registry::open(&host.root()).unwrap();
    vm.join(&web(), &member(1)).unwrap();
    let found = ["advisor_mode", "pages_to_scan", "use_zero_pages", "run"];
    assert_eq!(found.map(|name| setting(&host.root(), name)), ["none", "1000", "1", "1"]);
    assert_eq!(vm.full_scans().unwrap(), 3);
    vm.leave(Departure::Unmerged).unwrap();
    assert_eq!(["advisor_mode", "run"].map(|name| setting(&host.root(), name)), ["scan-time", "0"]);
    let old_host = self::host(&BEFORE[1..]);
    Registry::open(&old_host.root()).unwrap().join(&web(), &member(1)).unwrap();
    assert_eq!(["pages_to_scan", "run"].map(|name| setting(&old_host.root(), name)), ["1000", "1"]);
}

#[test]
fn what_a_killed_member_saved_is_put_back_by_the_next_one() {
    let host = host(&BEFORE);
    let root = host.root();
    assert_eq!(Registry::leftovers(&root), None);
    let mut killed = Registry::open(&root).unwrap();
    killed.join(&web(), &member(1)).unwrap();
    assert_eq!(Registry::leftovers(&root), None, "somebody holds the host");
    drop(killed);
    let left: Vec<(String, String)> = Registry::leftovers(&root)
        .unwrap()
        .saved
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    assert_eq!(left, BEFORE.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut next = Registry::open(&root).unwrap();
    next.join(&Domain::Process(2), &member(2)).unwrap();
    next.leave(Departure::Ending).unwrap();
    assert!(is_as_before(&root));
    assert_eq!(Registry::leftovers(&root), None);
}

#[test]
fn settings_of_killed_members_are_put_back_by_hand_but_not_those_of_members_that_live() {
    let host = host(&BEFORE);
    let root = host.root();
    let by_hand = Registry::open(&root).unwrap();
    assert!(!by_hand.put_leftovers_back().unwrap(), "there is nothing to put back");
    let mut vm = Registry::open(&root).unwrap();
    vm.join(&web(), &member(1)).unwrap();
    assert!(!by_hand.put_leftovers_back().unwrap());
    assert_eq!(setting(&root, "run"), "1");
    drop(vm);
    assert!(by_hand.put_leftovers_back().unwrap());
    assert!(is_as_before(&root));
    assert_eq!(Registry::leftovers(&root), None);
}

#[test]
fn a_vm_that_ends_keeps_others_out_until_it_has_ended() {
    let host = host(&BEFORE);
    let root = host.root();
    let [mut ending, mut mate, mut other] = [(); 3].map(|()| Registry::open(&root).unwrap());
    ending.join(&web(), &member(1)).unwrap();
    mate.join(&web(), &member(2)).unwrap();
    ending.leave(Departure::Ending).unwrap();
    assert!(!ending.is_member());
    assert!(matches!(ending.join(&web(), &member(1)), Err(RefusedJoin::Over)), "an order that came late");
    mate.leave(Departure::Unmerged).unwrap();
    assert!(is_as_before(&root), "the settings are nobody's any more");
    assert_eq!(Registry::leftovers(&root), None);
    assert!(matches!(other.join(&Domain::Process(3), &member(3)), Err(RefusedJoin::Ending)));
    assert!(is_as_before(&root));
    drop(ending);
    other.join(&Domain::Process(3), &member(3)).unwrap();
}

#[test]
fn looking_for_leftovers_is_in_nobodys_way() {
    let host = host(&BEFORE);
    let root = &host.root();
    let mut killed = Registry::open(root).unwrap();
    killed.join(&web(), &member(1)).unwrap();
    drop(killed);
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| (0..2000).filter(|_| Registry::leftovers(root).is_some()).count());
        for pid in 2..200 {
            let mut vm = Registry::open(root).unwrap();
            vm.join(&Domain::Process(pid), &member(pid)).unwrap();
        }
        looks.join().unwrap();
    });
    let mut vm = Registry::open(root).unwrap();
    vm.join(&web(), &member(1)).unwrap();
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| (0..2000).filter(|_| Registry::leftovers(root).is_some()).count());
        for pid in 2..200 {
            let mut other = Registry::open(root).unwrap();
            other.join(&web(), &member(pid)).unwrap();
            other.leave(Departure::Unmerged).unwrap();
        }
        assert_eq!(looks.join().unwrap(), 0, "somebody held the host all the time");
    });
}

#[test]
fn a_record_without_changed_settings_is_taken_over_too() {
    let host = host(&BEFORE);
    let root = host.root();
    let mut vm = Registry::open(&root).unwrap();
    // Killed after it had written its record and before it changed anything.
    let mut saved = Settings::default();
    BEFORE.iter().for_each(|(name, value)| saved.put(name, value).unwrap());
    let file =
        std::fs::File::options().write(true).open(root.as_ref().join(REGISTRY).join("record")).unwrap();
    Record { domain: web(), members: vec![member(1)], saved }.write(&file).unwrap();
    vm.join(&web(), &member(2)).unwrap();
    assert_eq!(setting(&root, "run"), "1");
    vm.leave(Departure::Unmerged).unwrap();
    assert!(is_as_before(&root));
}

#[test]
fn a_registry_that_was_removed_keeps_nobody_out_and_lets_nobody_in() {
    let host = host(&BEFORE);
    let mut vm = Registry::open(&host.root()).unwrap();
    std::fs::remove_dir_all(host.root().as_ref().join(REGISTRY)).unwrap();
    assert!(matches!(vm.join(&web(), &member(1)), Err(RefusedJoin::Replaced(_))));
    let mut later = Registry::open(&host.root()).unwrap();
    assert!(matches!(vm.join(&web(), &member(1)), Err(RefusedJoin::Replaced(_))));
    later.join(&web(), &member(2)).unwrap();
}

#[test]
fn a_host_without_ksm_says_so() {
    let error = Registry::open(&Fixture::new(&[]).root()).unwrap_err().to_string();
    assert!(error.contains("CONFIG_KSM"), "{error}");
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize, u8),
    Leave(usize),
    Kill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_usize, 0..3_u8).prop_map(|(vm, domain)| Step::Join(vm, domain)),
        2 => (0..4_usize).prop_map(Step::Leave),
        1 => (0..4_usize).prop_map(Step::Kill),
    ]
}

proptest! {
    #[test]
    fn one_domain_holds_at_a_time_and_the_settings_come_back(steps in proptest::collection::vec(step(), 0..40)) {
        let host = host(&BEFORE);
        let root = host.root();
        let open = || Registry::open(&root).unwrap();
        let mut vms: [Registry; 4] = std::array::from_fn(|_| open());
        let mut joined: [Option<Domain>; 4] = std::array::from_fn(|_| None);
        // Whether the last domain ended by a kill: nobody was left to put the settings back.
        let mut was_killed = false;
        for step in steps {
            match step {
                Step::Join(vm, domain) => {
                    let domain = match domain {
                        // Two VMs of two containers may have the same number.
                        0 => Domain::Process(vm as u32 % 2),
                        number => Domain::Named(number.to_string()),
                    };
                    let is_shared = matches!(domain, Domain::Named(_));
                    let may = match &joined[vm] {
                        Some(held) => *held == domain,
                        None => joined.iter().flatten().all(|held| is_shared && *held == domain),
                    };
                    prop_assert_eq!(vms[vm].join(&domain, &member(vm as u32)).is_ok(), may);
                    if may {
                        joined[vm] = Some(domain);
                        was_killed = false;
                    }
                }
                Step::Leave(vm) => {
                    vms[vm].leave(Departure::Unmerged).unwrap();
                    joined[vm] = None;
                }
                Step::Kill(vm) => {
                    vms[vm] = open();
                    let was_member = joined[vm].take().is_some();
                    was_killed |= was_member && joined.iter().all(Option::is_none);
                }
            }
            let is_held = joined.iter().any(Option::is_some);
            prop_assert_eq!(setting(&root, "run"), if is_held || was_killed { "1" } else { "0" });
            prop_assert_eq!(is_as_before(&root), !is_held && !was_killed);
            prop_assert_eq!(Registry::leftovers(&root).is_some(), was_killed);
            for (vm, domain) in vms.iter().zip(&joined) {
                prop_assert_eq!(vm.is_member(), domain.is_some());
            }
        }
        for vm in &mut vms {
            vm.leave(Departure::Unmerged).unwrap();
        }
        let mut last = open();
        last.join(&web(), &member(9)).unwrap();
        last.leave(Departure::Unmerged).unwrap();
        prop_assert!(is_as_before(&root));
    }
}
