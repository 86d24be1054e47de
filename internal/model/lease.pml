/*
 * How replicas renew one session that they share by leases: package oauth, the head of
 * renewal.go. Each macro removes one guard; model_test.go shows that each is needed.
 *
 * What is assumed:
 *
 *  - The store is linearizable: each of its steps is atomic, and it has one clock.
 *  - The server replaces the refresh token at each use, and ends the session if one comes
 *    a second time. It rejects a proof that is older than A, or from the future, before it
 *    looks at the refresh token. It may challenge any request (a nonce), without effect.
 *  - A request may arrive at any time after it was sent, or never. A response may be lost.
 *  - A replica may be paused between any two steps, for any time. One that died is one
 *    that is paused for ever. What it does not see is lost with it.
 *  - Time passes in steps, in which everything may happen. A proof is dated by a clock
 *    that is not ahead of the store's; F is more than A by what clocks may differ.
 *
 * What must hold whenever the server ends the session because of a refresh token that
 * came a second time:
 *
 *  - When the lease for that request was looked at (Begin), the token had been replaced
 *    before, and the store did not know its successor. So the session was lost before:
 *    the server had issued it to a replica that did not save it in time.
 *  - That replica had had its time: its proof was too old by then to be accepted.
 *
 * And no save replaces a newer session.
 */

#ifndef N
#define N 2 /* replicas */
#endif
#ifndef R
#define R 2 /* requests that each makes at most */
#endif
#ifndef H
#define H 4 /* how long they live */
#endif
#define L 1 /* how long a lease holds */
#define A 1 /* how old a proof may be */
#ifdef SHORT_WAIT
#define F A
#else
#define F (A+1)
#endif

byte now;

/* The row of the store. Two logins are possible: the first one, and another. */
byte login, token;
byte owner, until; /* of the lease; nobody is 0 */
bool marked;
byte mark;

/* The server: the refresh token that is good, and when the proof was made for it. */
byte good[2], good_iat[2];
bool ended[2];

mtype = { none, sent, issued, challenge, rejected };

typedef request {
	mtype state = none;
	bool waited; /* for a response */
	byte login, token, iat;
	byte begun;  /* when the lease was looked at */
	bool spent;  /* the token had been replaced then, unknown to the store */
};
request q[N*R];

#define FREE (owner == 0 || now >= until)
#define SAME (login == my_login && token == my_token)
#define MINE (owner == i + 1)

#ifdef NO_OWNER_AT_BEGIN
#define MAY_BEGIN SAME
#else
#ifdef NO_LINEAGE_AT_BEGIN
#define MAY_BEGIN MINE
#else
#define MAY_BEGIN (MINE && SAME)
#endif
#endif

#ifdef NO_OWNER_AT_RELEASE
#define MAY_RELEASE true
#else
#define MAY_RELEASE MINE
#endif

/* What does not matter any more is set to zero, which makes states equal. */
inline forget() {
	my_login = 0; my_token = 0; iat = 0; begun = 0; spent = false;
	former_marked = false; former_mark = 0; last = 0
}
inline release() {
	if
	:: MAY_RELEASE -> owner = 0; until = 0
	:: else
	fi
}
inline respond(r) {
	q[n].state = (q[n].waited -> r : none);
	q[n].login = 0; q[n].token = 0; q[n].iat = 0; q[n].begun = 0; q[n].spent = false
}

proctype Replica(byte i) {
	byte my_login, my_token, iat, begun, former_mark, s = i * R, last = i * R;
	bool former_marked, spent;

take:
	skip; /* a pause */
	atomic {
		FREE && s < (i + 1) * R ->
		owner = i + 1; until = now + L;
		my_login = login; my_token = token;
		former_marked = marked; former_mark = mark;
	}
#ifndef NO_WAIT
	if /* a request of somebody else may still arrive */
	:: former_marked && now < former_mark + F -> goto leave
	:: else
	fi;
#endif
begin:
	skip; /* a pause */
	atomic {
		if
		:: MAY_BEGIN ->
			until = now + L;
#ifndef NO_MARK
			marked = true; mark = now;
#endif
			iat = now; begun = now;
#ifdef CLOCK_AHEAD
			iat = now + 1;
#endif
			spent = (SAME && good[my_login] > my_token)
		:: else -> goto leave
		fi
	}
send:
	skip; /* a pause */
	atomic {
#ifdef DATED_AT_SENDING
		iat = now;
#endif
		q[s].login = my_login; q[s].token = my_token; q[s].iat = iat;
		q[s].begun = begun; q[s].spent = spent;
		q[s].state = sent; q[s].waited = true;
		last = s; s++;
#ifndef NO_BEGIN_AT_CHALLENGE
		iat = 0; begun = 0; spent = false
#endif
	}
	if
	:: atomic { q[last].state == issued -> q[last].state = none; goto save }
	:: atomic { q[last].state == challenge -> q[last].state = none;
			if
			:: s < (i + 1) * R ->
#ifdef NO_BEGIN_AT_CHALLENGE
				iat = now; goto send
#else
				goto begin
#endif
			:: else -> goto leave
			fi
		}
	:: atomic { q[last].state == rejected -> q[last].state = none; goto leave }
	:: atomic { q[last].waited = false; /* no response in time */
			if
			:: q[last].state != sent -> q[last].state = none
			:: else
			fi;
#ifdef NO_MEMORY_OF_THE_UNKNOWN
			goto leave
#else
			release(); forget(); goto take
#endif
		}
	fi;
save:
	skip; /* a pause */
	atomic {
		if
#ifdef BLIND_SAVE
		:: true ->
#else
		:: SAME ->
#endif
			assert(login <= my_login); /* not over another login */
			assert(login < my_login || token <= my_token + 1);
			login = my_login; token = my_token + 1; marked = false; mark = 0
		:: !SAME /* another session is adopted */
		fi;
		release(); forget(); goto take
	}
leave: /* no request of this lease had an effect */
	skip;
	atomic {
		if
		:: MAY_RELEASE -> marked = former_marked; mark = former_mark
		:: else
		fi;
		release(); forget(); goto take
	}
}

/* Each request has its own way to the server. */
proctype Server(byte n) {
	byte l, t;
	do
	:: atomic {
		q[n].state == sent;
		l = q[n].login; t = q[n].token;
		if
		:: q[n].waited -> respond(challenge)
		:: now > q[n].iat + A || q[n].iat > now -> respond(rejected)
		:: now <= q[n].iat + A && q[n].iat <= now ->
			if
			:: ended[l] -> respond(rejected)
			:: !ended[l] && good[l] == t ->
				good[l]++;
				good_iat[l] = q[n].iat;
				respond(issued)
			:: !ended[l] && good[l] > t ->
				assert(q[n].spent);
				assert(good[l] > t + 1 || q[n].begun > good_iat[l] + A);
				ended[l] = true;
				respond(rejected)
			fi
		fi;
		l = 0; t = 0
	}
	od
}

#ifdef LOGIN
proctype Login() {
	atomic { FREE -> login = 1; token = 0; marked = false; mark = 0; owner = 0; until = 0 }
}
#endif

proctype Clock() {
	do
	:: now < H -> now++
	:: else -> break
	od
}

init {
	byte i;
	atomic {
		for (i : 0 .. N - 1) { run Replica(i) }
		for (i : 0 .. N * R - 1) { run Server(i) }
#ifdef LOGIN
		run Login();
#endif
		run Clock()
	}
}
