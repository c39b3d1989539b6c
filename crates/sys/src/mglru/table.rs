//! What the kernel tells about generations (Documentation/admin-guide/mm/multigen_lru.rst).

use napa_units::Pages;

/// The generations of one control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// The number that orders to the kernel name it by.
    pub id: u64,
    pub nodes: Vec<Node>,
}

/// Its generations on one memory node, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub id: u32,
    pub generations: Vec<Generation>,
}

/// Pages that were accessed at about the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    pub number: u64,
    pub anonymous: Pages,
}

impl Node {
    /// The youngest generation.
    pub fn youngest(&self) -> Option<u64> {
        self.generations.last().map(|generation| generation.number)
    }

    /// Anonymous pages of a generation and those younger than it.
    pub fn anonymous_from(&self, number: u64) -> Pages {
        let young = self.generations.iter().filter(|generation| generation.number >= number);
        Pages(young.map(|generation| generation.anonymous.0).sum())
    }
}

/// Finds the group with this path. `None`: the kernel keeps no generations for it, or says something else than we know.
pub(super) fn find(text: &str, path: &str) -> Option<Group> {
    let mut lines = text.lines();
    let id = lines.by_ref().find_map(|line| id_of(line, path))?;
    let mut nodes: Vec<Node> = Vec::new();
    for line in lines.take_while(|line| !line.starts_with("memcg ")) {
        let mut words = line.split_whitespace();
        match words.next()? {
            "node" => nodes.push(Node { id: words.next()?.parse().ok()?, generations: Vec::new() }),
            number => {
                // The second word is an age.
                let generation = Generation {
                    number: number.parse().ok()?,
                    anonymous: Pages(words.nth(1)?.parse().ok()?),
                };
                nodes.last_mut()?.generations.push(generation);
            }
        }
    }
    let is_whole = !nodes.is_empty() && nodes.iter().all(|node| !node.generations.is_empty());
    is_whole.then_some(Group { id, nodes })
}

fn id_of(line: &str, path: &str) -> Option<u64> {
    let (id, found) = line.strip_prefix("memcg ")?.trim_start().split_once(' ')?;
    if found == path { id.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.1 and 6.12 print it: the root group, one on two nodes, and one whose name begins like that.
    const TEXT: &str = "\
memcg     1 /
 node     0
         12      87340        101        2250 
         13       1200          7           0 
memcg     3 /napa/vm
 node     0
          2      18712          1           0 
          3      18712         14         123 
          4      15348      16900           7 
          5         60          9           0 
 node     1
          0      15348         11           7 
          1         60          5           0 
memcg    44 /napa/vm 2
 node     0
          0         60          3           0 
";

    #[test]
    fn a_group_is_found_by_its_whole_path() {
        let group = find(TEXT, "/napa/vm").unwrap();
        assert_eq!(group.id, 3);
        let youngest: Vec<_> = group.nodes.iter().map(|node| (node.id, node.youngest())).collect();
        assert_eq!(youngest, [(0, Some(5)), (1, Some(1))]);
        for (node, number, expected) in [(0, 4, 16_909), (0, 5, 9), (0, 6, 0), (1, 0, 16)] {
            assert_eq!(group.nodes[node].anonymous_from(number), Pages(expected), "node {node}, {number}");
        }
        assert_eq!(find(TEXT, "/napa/vm 2").unwrap().id, 44);
        assert_eq!(find(TEXT, "/").unwrap().nodes[0].anonymous_from(0), Pages(108));
        assert_eq!(find(TEXT, "/napa"), None);
    }

    #[test]
    fn what_is_no_such_table_is_nothing() {
        for text in [
            "",
            "memcg     3 /napa/vm\n",
            "memcg     3 /napa/vm\n node     0\n",
            "memcg     3 /napa/vm\n          5         60          9           0 \n",
            "memcg     3 /napa/vm\n node     0\n          5         60 \n",
            "memcg     x /napa/vm\n node     0\n          5         60          9           0 \n",
        ] {
            assert_eq!(find(text, "/napa/vm"), None, "{text:?}");
        }
    }
}
