// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

/*
 * The process that holds a pod's namespaces open. Where the pod's containers
 * share its process namespace it is their init: it collects their orphans.
 */
#include <signal.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t signals;
	int sig;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGCHLD);
	/* Blocked and waited for, so that none is lost between two looks. */
	if (sigprocmask(SIG_BLOCK, &signals, 0) != 0)
		return 1;
	for (;;) {
		if (sigwait(&signals, &sig) != 0)
			continue;
		if (sig != SIGCHLD)
			return 0;
		while (waitpid(-1, 0, WNOHANG) > 0)
			;
	}
}
