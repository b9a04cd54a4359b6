//! tmp
use enishi_sim::{Options, Scenario};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let t = std::time::Instant::now();
    let o = Options {
        nodes: a[2].parse().unwrap(),
        seed: a[3].parse().unwrap(),
        long_links: a.get(4).map(|x| x.parse().unwrap()),
    };
    let r = a[1].parse::<Scenario>().unwrap().run(&o, &mut |_| {});
    println!("{:?} {:?}", r, t.elapsed());
}
